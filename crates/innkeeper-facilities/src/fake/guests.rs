//! Closures, keys, networks and the host in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use async_trait::async_trait;
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Guest, GuestName, Installable, StorePath, Trust};
use tokio::sync::mpsc::UnboundedSender;

use super::part::Part;
use super::world::a_closure;
use crate::closures::{Built, Closures, Effort, ProgressSink};
use crate::error::FacilityError;
use crate::firewall::Firewall;
use crate::host::{GuestUserIds, HostFacts, HostFeatures};
use crate::network::Network;
use crate::secrets::Secrets;
use crate::traffic::{FirstPackets, GuestTraffic, Traffic};

#[async_trait]
impl Closures for Part {
    async fn build(
        &self,
        installable: &Installable,
        trust: Trust,
        _known: Option<&Built>,
        effort: Effort,
        _progress: ProgressSink,
    ) -> Result<Built, FacilityError> {
        self.host.builds.notified().await;
        self.call("closure.build", None)?;
        let mut world = self.host.world();
        world.builds.push(trust);
        if effort == Effort::Background {
            world.background_builds.push(installable.to_string());
        }
        Ok(Built {
            closure: world.next_build.clone().unwrap_or_else(a_closure),
            fingerprint: "f".to_owned(),
        })
    }

    async fn require_space(&self) -> Result<(), FacilityError> {
        self.query("closure.require_space")
    }

    async fn verify(&self, _closure: &StorePath) -> Result<(), FacilityError> {
        self.call("closure.verify", None)
    }

    async fn require_registered(&self, _closure: &StorePath) -> Result<(), FacilityError> {
        self.call("closure.require_registered", None)
    }

    async fn ensure(&self, guest: &Guest, _closure: &StorePath) -> Result<(), FacilityError> {
        self.call("closure.ensure", Some(&guest.name))?;
        self.host.world().roots.insert(guest.name.clone());
        Ok(())
    }

    async fn builds_with_nix(&self, _: &Guest, closure: &StorePath) -> Result<bool, FacilityError> {
        self.query("closure.builds_with_nix")?;
        Ok(self.host.world().with_nix.contains(closure))
    }

    async fn inherit(&self, _origin: &GuestName, guest: &GuestName) -> Result<(), FacilityError> {
        self.call("closure.inherit", Some(guest))
    }

    async fn export(&self, _closures: &[StorePath], _to: &Path) -> Result<(), FacilityError> {
        self.call("closure.export", None)
    }

    async fn import(&self, _closure: &StorePath, _from: &Path) -> Result<(), FacilityError> {
        self.call("closure.import", None)
    }

    async fn ensure_former(&self, guest: &GuestName, _: &StorePath) -> Result<(), FacilityError> {
        self.call("closure.ensure_former", Some(guest))?;
        self.host.world().former_roots.insert(guest.clone());
        Ok(())
    }

    async fn remove_former(&self, guest: &GuestName) -> Result<(), FacilityError> {
        self.call("closure.remove_former", Some(guest))?;
        self.host.world().former_roots.remove(guest);
        Ok(())
    }

    async fn has_program(
        &self,
        _: &StorePath,
        program: &'static str,
    ) -> Result<bool, FacilityError> {
        self.query("closure.has_program")?;
        Ok(self.host.world().programs.contains(program))
    }
}

#[async_trait]
impl Secrets for Part {
    async fn ensure(&self, guest: &Guest) -> Result<String, FacilityError> {
        self.call("secrets.ensure", Some(&guest.name))?;
        Ok("ssh-ed25519 AAAA".to_owned())
    }

    async fn take_over(&self, guest: &Guest, _: &GuestName) -> Result<String, FacilityError> {
        self.call("secrets.take_over", Some(&guest.name))?;
        Ok("ssh-ed25519 AAAA".to_owned())
    }

    async fn withdraw(&self, guest: &Guest) -> Result<(), FacilityError> {
        self.call("secrets.withdraw", Some(&guest.name))
    }

    async fn forget_identity(&self, guest: &Guest, _: &GuestName) -> Result<(), FacilityError> {
        self.call("secrets.forget_identity", Some(&guest.name))
    }

    async fn follow_host(&self, guest: &Guest) -> Result<(), FacilityError> {
        self.call("secrets.follow_host", Some(&guest.name))
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl HostFacts for Part {
    async fn changed(&self) {
        self.host.facts.notified().await;
    }
}

#[async_trait]
impl HostFeatures for Part {
    fn user_namespaces(&self) -> bool {
        true
    }

    fn guest_user_ids(&self) -> GuestUserIds {
        let configured = self.host.world().guest_user_ids;
        configured.unwrap_or(GuestUserIds::SeveralSlots)
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl Network for Part {
    async fn ensure(&self, guest: &Guest, _leader: u32) -> Result<(), FacilityError> {
        self.call("network.ensure", Some(&guest.name))?;
        self.host.world().links.insert(guest.name.clone());
        Ok(())
    }

    async fn follow_uplink(&self, guest: &Guest, _leader: u32) -> Result<(), FacilityError> {
        self.call("network.follow_uplink", Some(&guest.name))
    }

    async fn ssh_sessions(&self, guest: &Guest, _leader: u32) -> Result<usize, FacilityError> {
        self.query("network.ssh_sessions")?;
        Ok(usize::from(
            self.host.world().with_ssh.contains(&guest.name),
        ))
    }

    async fn connect(
        &self,
        guest: &Guest,
        _leader: u32,
        _port: u16,
    ) -> Result<Option<std::net::TcpStream>, FacilityError> {
        self.call("network.connect", Some(&guest.name))?;
        Ok(None)
    }

    async fn rename(&self, from: &GuestName, guest: &Guest) -> Result<(), FacilityError> {
        self.call("network.rename", Some(&guest.name))?;
        let mut world = self.host.world();
        if world.links.remove(from) {
            world.links.insert(guest.name.clone());
        }
        Ok(())
    }

    async fn is_complete(&self, guest: &Guest) -> Result<bool, FacilityError> {
        Ok(self.host.world().links.contains(&guest.name))
    }

    async fn prepare_parking(&self) -> Result<(), FacilityError> {
        self.query("network.prepare_parking")
    }

    async fn park(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        self.query("network.park")?;
        self.host.world().parked.insert(guest);
        Ok(())
    }

    async fn unpark(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        self.query("network.unpark")?;
        self.host.world().parked.remove(&guest);
        Ok(())
    }

    async fn is_parked(&self, guest: Ipv4Addr) -> Result<bool, FacilityError> {
        Ok(self.host.world().parked.contains(&guest))
    }

    async fn parked(&self) -> Result<BTreeSet<Ipv4Addr>, FacilityError> {
        Ok(self.host.world().parked.clone())
    }
}

#[async_trait]
impl Firewall for Part {
    async fn ensure(&self) -> Result<(), FacilityError> {
        self.call("firewall.ensure", None)
    }

    async fn check(&self) -> Vec<Check> {
        let (verdict, finding) = match self.call("firewall.check", None) {
            Ok(()) => (Verdict::Ok, "the rules are in force".to_owned()),
            Err(error) => (Verdict::Broken, error.to_string()),
        };
        vec![Check {
            subject: "firewall".to_owned(),
            verdict,
            finding,
            remedy: None,
        }]
    }
}

#[async_trait]
impl Traffic for Part {
    async fn traffic(&self) -> Result<BTreeMap<Ipv4Addr, GuestTraffic>, FacilityError> {
        self.query("traffic.traffic")?;
        Ok(self.host.world().traffic.clone())
    }

    async fn forget(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        self.host.world().traffic.remove(&guest);
        Ok(())
    }
}

#[async_trait]
impl FirstPackets for Part {
    async fn watch(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        self.query("packets.watch")?;
        self.host.world().watched.insert(guest);
        Ok(())
    }

    async fn resume(&self, guest: Ipv4Addr) {
        let mut world = self.host.world();
        if !world.watched.contains(&guest) {
            world.reached.insert(guest);
            self.host.packets.notify_one();
        }
    }

    async fn unwatch(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        self.host.world().watched.remove(&guest);
        Ok(())
    }

    async fn unreached(&self) -> BTreeSet<Ipv4Addr> {
        self.host.world().watched.clone()
    }

    async fn expect(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        self.host.world().reached_asleep.remove(&guest);
        Ok(())
    }

    async fn hold_refusals(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        self.host.world().starting.insert(guest);
        Ok(())
    }

    async fn follow(&self, reached: UnboundedSender<BTreeSet<Ipv4Addr>>) {
        let before = self.host.world().reached_asleep.clone();
        drop(reached.send(before));
        while !reached.is_closed() {
            self.host.packets.notified().await;
            let guests = std::mem::take(&mut self.host.world().reached);
            drop(reached.send(guests));
        }
    }
}
