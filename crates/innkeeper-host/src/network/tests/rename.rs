//! A network that another guest takes over.

use super::*;

#[tokio::test]
async fn renamed_network_stays_complete() {
    if !enter_own_namespace("renamed_network_stays_complete") {
        return;
    }
    let network = network();
    let (seat, web, other) = (guest("0-door-7", 7), guest("web-1", 7), guest("other", 7));
    let leader = Leader::start().await;
    network.ensure(&seat, leader.pid).await.expect("ensure");
    for _ in 0..2 {
        network.rename(&seat.name, &web).await.expect("rename");
        assert!(network.is_complete(&web).await.expect("is_complete"));
        assert!(!network.is_complete(&seat).await.expect("is_complete"));
    }
    network.rename(&seat.name, &other).await.expect("rename");
    assert!(network.is_complete(&web).await.expect("another's"));
    network.remove(&seat.name).await.expect("remove");
    assert!(network.is_complete(&web).await.expect("is_complete"));
    network.remove(&web.name).await.expect("remove");
    assert_eq!(interfaces().await, only_lo());
    network.rename(&seat.name, &web).await.expect("nothing");
    leader.stop().await;
}
