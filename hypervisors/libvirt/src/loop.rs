//! libvirt's event loop. There is one per process: it carries the events, the signs of life and the ends of all
//! connections. Its thread lives as long as somebody holds an [`EventLoop`].

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use virt::event::{self, EventTimeoutWatch};

/// The loop of this process, shared by its connections.
#[derive(Debug)]
pub(crate) struct EventLoop {
    number: u64,
}

struct Running {
    number: u64,
    stop: Arc<AtomicBool>,
    wake: EventTimeoutWatch,
    thread: JoinHandle<()>,
}

struct Slot {
    shared: Weak<EventLoop>,
    running: Option<Running>,
    next: u64,
}

static SLOT: Mutex<Slot> = Mutex::new(Slot {
    shared: Weak::new(),
    running: None,
    next: 0,
});
static REGISTER: Once = Once::new();

impl EventLoop {
    /// The running loop, or a new one. To be called before the first connection is opened.
    pub(crate) fn get() -> io::Result<Arc<Self>> {
        REGISTER.call_once(|| {
            // Else libvirt prints every error.
            virt::error::clear_error_callback();
            if let Err(e) = event::event_register_default_impl() {
                tracing::error!(error = %e, "libvirt has no event loop");
            }
        });
        let mut slot = SLOT.lock();
        if let Some(shared) = slot.shared.upgrade() {
            return Ok(shared);
        }
        // Its last holder is just going: two threads must not run one loop.
        slot.end(None);
        let number = slot.next;
        slot.next += 1;
        slot.running = Some(Running::start(number)?);
        let shared = Arc::new(Self { number });
        slot.shared = Arc::downgrade(&shared);
        Ok(shared)
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        SLOT.lock().end(Some(self.number));
    }
}

impl Slot {
    /// Ends the running loop, if it is this one.
    fn end(&mut self, number: Option<u64>) {
        if let Some(running) = self
            .running
            .take_if(|r| number.is_none_or(|number| r.number == number))
        {
            running.stop.store(true, Ordering::Release);
            // Fires without end until the thread has gone.
            running.wake.event_update_timeout(0);
            if running.thread.join().is_err() {
                tracing::error!("libvirt's event loop has panicked");
            }
            if let Err(e) = running.wake.event_remove_timeout() {
                tracing::debug!(error = %e, "libvirt's event loop keeps a timer");
            }
        }
    }
}

impl Running {
    fn start(number: u64) -> io::Result<Self> {
        // Without anything registered the loop would wait for ever.
        let wake = event::event_add_timeout(-1, |_, _| {}, std::ptr::null_mut()).map_err(io::Error::other)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("libvirt-events".into())
            .spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    if let Err(e) = event::event_run_default_impl() {
                        tracing::warn!(error = %e, "libvirt's event loop");
                        std::thread::park_timeout(Duration::from_millis(100));
                    }
                }
            })?;
        Ok(Self {
            number,
            stop,
            wake,
            thread,
        })
    }
}
