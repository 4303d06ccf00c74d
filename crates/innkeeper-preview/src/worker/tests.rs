use super::*;

#[tokio::test]
async fn cancellation_is_seen_by_work_that_is_always_ready() {
    let (order, mut orders) = watch::channel(0);
    let canceled = async move { orders.changed().await.expect("an order") };
    let work = async {
        // Each turn ends with the budget used up, as with a pipe that is never empty.
        for turn in 0..1000 {
            tokio::task::yield_now().await;
            while tokio::task::coop::has_budget_remaining() {
                tokio::task::coop::consume_budget().await;
            }
            if turn == 10 {
                order.send(1).expect("a receiver");
            }
        }
    };
    assert_eq!(unless(canceled, work).await, None);
}
