//! Listing and removing in memory.

use async_trait::async_trait;
use innkeeper_model::GuestName;
use innkeeper_model::api::Check;

use super::part::Part;
use crate::error::FacilityError;
use crate::resource::{Found, Resource};

#[async_trait]
impl Resource for Part {
    fn kind(&self) -> &'static str {
        self.kind
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        self.query(&format!("{}.observe", self.kind))?;
        let world = self.host.world();
        let names: Vec<GuestName> = match self.kind {
            "closure" => world.roots.iter().cloned().collect(),
            "rootfs" => world.owners_of_files(),
            "network" => world.links.iter().cloned().collect(),
            "route" => world.routes.keys().cloned().collect(),
            "database" => world.databases.keys().cloned().collect(),
            "page" => world.pages.keys().cloned().collect(),
            _ => world.units.keys().cloned().collect(),
        };
        let own = names
            .into_iter()
            .map(|name| Found::ours(Some(name.clone()), name.to_string()));
        let foreign = world.foreign.iter().filter(|_| self.kind == "network");
        Ok(own.chain(foreign.cloned()).collect())
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        match self.kind {
            "closure" => {
                self.call("closure.remove", Some(guest))?;
                let mut world = self.host.world();
                world.roots.remove(guest);
                world.former_roots.remove(guest);
            }
            "rootfs" => {
                self.call("rootfs.remove", Some(guest))?;
                let mut world = self.host.world();
                world.trees.remove(guest);
                world.snapshots.retain(|(of, _), _| of != guest);
                world.guest_files.retain(|(of, _), _| of != guest);
            }
            "network" => {
                self.call("network.remove", Some(guest))?;
                self.host.world().links.remove(guest);
            }
            "route" => {
                self.call("route.remove", Some(guest))?;
                self.host.world().routes.remove(guest);
            }
            "database" => {
                self.call("database.remove", Some(guest))?;
                self.host.world().databases.remove(guest);
            }
            "page" => {
                self.query("page.remove")?;
                self.host.world().pages.remove(guest);
            }
            _ => {
                self.call("unit.remove", Some(guest))?;
                let mut world = self.host.world();
                world.units.remove(guest);
                world.frozen.remove(guest);
                world.freezing.remove(guest);
            }
        }
        Ok(())
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        self.host.world().foreign.retain(|foreign| foreign != found);
        match &found.guest {
            Some(guest) => self.remove(guest).await,
            None => {
                let mut world = self.host.world();
                world
                    .snapshots
                    .retain(|(guest, label), _| format!("{guest}.{label}") != found.object);
                world
                    .retained
                    .retain(|id, _| format!("retained-{id}") != found.object);
                Ok(())
            }
        }
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}
