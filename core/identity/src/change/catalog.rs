//! Regions, services and endpoints.

use super::{
    ChangeError, ChangeResult, Draft, Edit, checked_name, checked_text, create, together, touch, unchanged,
};
use crate::{Endpoint, EndpointId, Interface, Region, Service, ServiceId, paths};

/// Longest address.
const MAX_URL: usize = 2048;
/// Most regions around one another.
const MAX_REGION_DEPTH: usize = 8;

impl Edit<'_> {
    /// Makes a region.
    ///
    /// # Errors
    /// `Conflict` (there is one with that id), `NotFound` (parent), `Invalid`.
    pub fn create_region(&self, id: &str, fill: impl FnOnce(&mut Region)) -> ChangeResult<Draft<Region>> {
        let mut region = Region {
            id: id.to_owned(),
            description: String::new(),
            parent: None,
            created_at: self.now,
        };
        fill(&mut region);
        unchanged("id", &id, &region.id.as_str())?;
        checked_region(&region)?;
        if self.at.region(id).is_some() {
            return Err(ChangeError::Conflict(format!("there is already a region {id:?}")));
        }
        let on_parent = self.on_region(region.parent.as_deref(), "parent")?;
        let txn = together([on_parent, create(&paths::region(id), &region)?]);
        Ok(Draft::new(region, txn))
    }

    /// Changes a region, also the one around it.
    ///
    /// # Errors
    /// `NotFound` (region, parent), `Invalid` (it would lie in itself).
    pub fn update_region(&self, id: &str, change: impl FnOnce(&mut Region)) -> ChangeResult<Draft<Region>> {
        let old = Self::found(self.at.region(id), "region", id, paths::region(id))?;
        let mut region = old.value.clone();
        change(&mut region);
        unchanged("id", &old.value.id, &region.id)?;
        unchanged("created_at", &old.value.created_at, &region.created_at)?;
        checked_region(&region)?;
        let mut parts = vec![old.replace(&region)?];
        if region.parent != old.value.parent {
            parts.push(self.on_region(region.parent.as_deref(), "parent")?);
            // All around the new place are written as they are: of two moves that would close a circle, one does not pass.
            let mut next = region.parent.as_deref();
            while let Some(around) = next.and_then(|id| self.at.region(id)) {
                if around.value.id == region.id {
                    return Err(ChangeError::invalid("parent", "lies in the region itself"));
                }
                if Some(around.value.id.as_str()) != region.parent.as_deref() {
                    parts.push(touch(around)?);
                }
                next = around.value.parent.as_deref();
            }
        }
        Ok(Draft::new(region, together(parts)))
    }

    /// Removes a region that nothing is in.
    ///
    /// # Errors
    /// `NotFound`, `InUse`.
    pub fn delete_region(&self, id: &str) -> ChangeResult<Draft<Region>> {
        let old = Self::found(self.at.region(id), "region", id, paths::region(id))?;
        let in_use = |by: String| ChangeError::InUse { what: "region", by };
        if let Some(inner) = self
            .at
            .regions()
            .find(|region| region.value.parent.as_deref() == Some(id))
        {
            return Err(in_use(format!("the region {:?} is in it", inner.value.id)));
        }
        if let Some(endpoint) = self
            .at
            .endpoints()
            .find(|e| e.value.region.as_deref() == Some(id))
        {
            return Err(in_use(format!("the endpoint {} is in it", endpoint.value.id)));
        }
        Ok(Draft::new(old.value.clone(), old.delete()))
    }

    /// Makes a service.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn create_service(
        &self,
        kind: &str,
        fill: impl FnOnce(&mut Service),
    ) -> ChangeResult<Draft<Service>> {
        let first = Service {
            id: ServiceId::fresh(self.ids),
            kind: kind.to_owned(),
            name: String::new(),
            description: String::new(),
            enabled: true,
            created_at: self.now,
        };
        let mut service = first.clone();
        fill(&mut service);
        fixed_service(&first, &service)?;
        let txn = create(&paths::service(service.id), &service)?;
        Ok(Draft::new(service, txn))
    }

    /// Changes a service.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`.
    pub fn update_service(
        &self,
        id: ServiceId,
        change: impl FnOnce(&mut Service),
    ) -> ChangeResult<Draft<Service>> {
        let old = Self::found(self.at.service(id), "service", id, paths::service(id))?;
        let mut service = old.value.clone();
        change(&mut service);
        fixed_service(&old.value, &service)?;
        let txn = old.replace(&service)?;
        Ok(Draft::new(service, txn))
    }

    /// Makes an endpoint.
    ///
    /// # Errors
    /// `NotFound` (service, region), `Invalid`.
    pub fn create_endpoint(
        &self,
        service: ServiceId,
        interface: Interface,
        url: &str,
        fill: impl FnOnce(&mut Endpoint),
    ) -> ChangeResult<Draft<Endpoint>> {
        let of = Self::found(
            self.at.service(service),
            "service",
            service,
            paths::service(service),
        )?;
        let mut endpoint = Endpoint {
            id: EndpointId::fresh(self.ids),
            service,
            interface,
            region: None,
            url: url.to_owned(),
            enabled: true,
            created_at: self.now,
        };
        let id = endpoint.id;
        fill(&mut endpoint);
        unchanged("id", &id, &endpoint.id)?;
        unchanged("service", &service, &endpoint.service)?;
        checked_url(&endpoint.url)?;
        let on = [touch(of)?, self.on_region(endpoint.region.as_deref(), "region")?];
        let made = create(&paths::endpoint(id), &endpoint)?;
        Ok(Draft::new(endpoint, together(on.into_iter().chain([made]))))
    }

    /// Changes an endpoint, also to which service and region it belongs.
    ///
    /// # Errors
    /// `NotFound` (endpoint, service, region), `Invalid`.
    pub fn update_endpoint(
        &self,
        id: EndpointId,
        change: impl FnOnce(&mut Endpoint),
    ) -> ChangeResult<Draft<Endpoint>> {
        let old = Self::found(self.at.endpoint(id), "endpoint", id, paths::endpoint(id))?;
        let mut endpoint = old.value.clone();
        change(&mut endpoint);
        unchanged("id", &old.value.id, &endpoint.id)?;
        unchanged("created_at", &old.value.created_at, &endpoint.created_at)?;
        checked_url(&endpoint.url)?;
        let mut parts = vec![old.replace(&endpoint)?];
        if endpoint.service != old.value.service {
            let (of, path) = (endpoint.service, paths::service(endpoint.service));
            parts.push(touch(Self::found(self.at.service(of), "service", of, path)?)?);
        }
        if endpoint.region != old.value.region {
            parts.push(self.on_region(endpoint.region.as_deref(), "region")?);
        }
        Ok(Draft::new(endpoint, together(parts)))
    }

    /// Removes an endpoint.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn delete_endpoint(&self, id: EndpointId) -> ChangeResult<Draft<Endpoint>> {
        let old = Self::found(self.at.endpoint(id), "endpoint", id, paths::endpoint(id))?;
        Ok(Draft::new(old.value.clone(), old.delete()))
    }

    /// What rests on a region: the region is written as it is, so that nobody removes it meanwhile.
    fn on_region(&self, id: Option<&str>, field: &'static str) -> ChangeResult<skyloom_store::Txn> {
        let Some(id) = id else {
            return Ok(skyloom_store::Txn::new());
        };
        let region = Self::found(self.at.region(id), "region", id, paths::region(id))?;
        let (mut depth, mut next) = (1, region.value.parent.as_deref());
        while let Some(id) = next {
            depth += 1;
            if depth >= MAX_REGION_DEPTH {
                return Err(ChangeError::invalid(field, "lies in too many other regions"));
            }
            next = self
                .at
                .region(id)
                .and_then(|region| region.value.parent.as_deref());
        }
        touch(region)
    }
}

fn checked_region(region: &Region) -> ChangeResult<()> {
    crate::check_name(&region.id).map_err(|e| ChangeError::invalid("id", e))?;
    checked_text("description", &region.description)
}

fn fixed_service(old: &Service, new: &Service) -> ChangeResult<()> {
    unchanged("id", &old.id, &new.id)?;
    unchanged("created_at", &old.created_at, &new.created_at)?;
    crate::check_name(&new.kind).map_err(|e| ChangeError::invalid("type", e))?;
    if !new.name.is_empty() {
        checked_name(&new.name)?;
    }
    checked_text("description", &new.description)
}

fn checked_url(url: &str) -> ChangeResult<()> {
    if url.is_empty() || url.len() > MAX_URL || url.chars().any(|c| c.is_control() || c == ' ') {
        return Err(ChangeError::invalid(
            "url",
            format!("has 1 to {MAX_URL} printable characters"),
        ));
    }
    Ok(())
}
