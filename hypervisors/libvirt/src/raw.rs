//! What the `virt` crate has no safe call for: being told of domains' changes and of a connection's end,
//! and limits of disks. The only unsafe
//! code of this crate.
//!
//! libvirt keeps a pointer to a boxed closure beside each registration and hands it back to [`free`] when the registration
//! is over and no call is under way. Closures are called on the thread of the event loop and must not wait.
#![allow(unsafe_code, reason = "libvirt's callbacks")]

use std::ffi::CStr;
use std::os::raw::{c_char, c_int, c_void};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// A change of a domain, in libvirt's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    /// The domain's name.
    pub(crate) name: String,
    /// Its UUID.
    pub(crate) uuid: uuid::Uuid,
    /// What happened: `VIR_DOMAIN_EVENT_*`.
    pub(crate) event: c_int,
    /// How: a number of its own for each event.
    pub(crate) detail: c_int,
}

type OnLifecycle = Box<dyn Fn(Lifecycle) + Send + Sync>;
type OnClose = Box<dyn Fn(c_int) + Send + Sync>;

unsafe extern "C" fn lifecycle(
    _conn: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let mut uuid = [0; 16];
    // SAFETY: libvirt lends a live domain for the time of the call; `uuid` has the 16 bytes that it writes. `opaque` is
    // what `on_lifecycle` registered with this very function.
    let (told, name) = unsafe {
        let known = sys::virDomainGetUUID(dom, uuid.as_mut_ptr()) == 0;
        let name: *const c_char = sys::virDomainGetName(dom);
        if !known || name.is_null() {
            return 0;
        }
        (&*opaque.cast::<OnLifecycle>(), CStr::from_ptr(name))
    };
    told(Lifecycle {
        name: name.to_string_lossy().into_owned(),
        uuid: uuid::Uuid::from_bytes(uuid),
        event,
        detail,
    });
    0
}

unsafe extern "C" fn closed(_conn: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is what `on_close` registered with this very function.
    let told = unsafe { &*opaque.cast::<OnClose>() };
    told(reason);
}

unsafe extern "C" fn free<T>(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` of the same type, and libvirt calls this once.
    drop(unsafe { Box::from_raw(opaque.cast::<T>()) });
}

/// Calls `told` for every change of any domain, until [`off_lifecycle`].
pub(crate) fn on_lifecycle(conn: &Connect, told: OnLifecycle) -> Result<c_int, Error> {
    type Specific =
        unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    let opaque = Box::into_raw(Box::new(told));
    // SAFETY: libvirt calls the function with the arguments of the event's own signature: that of lifecycle events is
    // `Specific`. The connection is open; the box is freed by `free`, here when there is no registration.
    unsafe {
        let generic = std::mem::transmute::<Specific, Generic>(lifecycle);
        let id = sys::virConnectDomainEventRegisterAny(
            conn.as_ptr(),
            std::ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            Some(generic),
            opaque.cast(),
            Some(free::<OnLifecycle>),
        );
        if id < 0 {
            drop(Box::from_raw(opaque));
            return Err(Error::last_error());
        }
        Ok(id)
    }
}

/// Ends a registration.
pub(crate) fn off_lifecycle(conn: &Connect, id: c_int) -> Result<(), Error> {
    // SAFETY: the connection is open, and `id` is from `on_lifecycle`.
    match unsafe { sys::virConnectDomainEventDeregisterAny(conn.as_ptr(), id) } {
        0.. => Ok(()),
        _ => Err(Error::last_error()),
    }
}

/// Sets what a running domain's disk may do each second; 0 is as much as it can.
pub(crate) fn limit_disk(domain: &Domain, dev: &CStr, bytes: u64, operations: u64) -> Result<(), Error> {
    let (mut list, mut count, mut room) = (std::ptr::null_mut(), 0, 0);
    let values = [
        (sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC, bytes),
        (sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC, operations),
    ];
    // SAFETY: libvirt makes and grows the list itself, and copies names and values into it; it is freed in each case.
    // The domain is open, and both strings end with NUL.
    unsafe {
        let added = values.into_iter().all(|(name, value)| {
            sys::virTypedParamsAddULLong(&mut list, &mut count, &mut room, name.as_ptr(), value) == 0
        });
        let set = added
            && sys::virDomainSetBlockIoTune(
                domain.as_ptr(),
                dev.as_ptr(),
                list,
                count,
                sys::VIR_DOMAIN_AFFECT_LIVE,
            ) == 0;
        let done = if set { Ok(()) } else { Err(Error::last_error()) };
        sys::virTypedParamsFree(list, count);
        done
    }
}

/// Calls `told` when the connection ends by itself.
pub(crate) fn on_close(conn: &Connect, told: OnClose) -> Result<(), Error> {
    let opaque = Box::into_raw(Box::new(told));
    // SAFETY: the connection is open; the box is freed by `free`, here when there is no registration.
    unsafe {
        let done = sys::virConnectRegisterCloseCallback(
            conn.as_ptr(),
            Some(closed),
            opaque.cast(),
            Some(free::<OnClose>),
        );
        if done < 0 {
            drop(Box::from_raw(opaque));
            return Err(Error::last_error());
        }
    }
    Ok(())
}

/// Ends the registration of [`on_close`].
pub(crate) fn off_close(conn: &Connect) -> Result<(), Error> {
    // SAFETY: the connection is open.
    match unsafe { sys::virConnectUnregisterCloseCallback(conn.as_ptr(), Some(closed)) } {
        0.. => Ok(()),
        _ => Err(Error::last_error()),
    }
}
