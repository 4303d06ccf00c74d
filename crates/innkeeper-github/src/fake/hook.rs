//! Deliveries to a webhook, signed as GitHub signs them.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use innkeeper_model::Secret;
use jiff::Timestamp;

use super::world::{DeliveryAttempt, HookTarget};
use super::{Shared, lock};
use crate::event::{DELIVERY_HEADER, EVENT_HEADER};
use crate::signature::{SIGNATURE_HEADER, SecretSet};

/// Delivers a payload: a new delivery, or one of before by its id.
pub(super) async fn deliver(
    world: &Shared,
    event: &str,
    payload: String,
    again: Option<String>,
) -> Option<DeliveryAttempt> {
    let (target, id) = {
        let mut world = lock(world);
        (world.hook.clone()?, world.id())
    };
    let redelivery = again.is_some();
    // It is new also when this program was started anew and counts from 1 again.
    let seconds = Timestamp::now().as_second();
    let guid = again.unwrap_or_else(|| format!("{seconds:08x}-0000-4000-8000-{id:012x}"));
    let status_code = post(&target, event, &guid, payload.clone()).await;
    let attempt = DeliveryAttempt {
        id,
        guid,
        event: event.to_owned(),
        status_code: status_code.unwrap_or(0),
        delivered_at: Timestamp::now(),
        redelivery,
        payload,
    };
    lock(world).attempts.push(attempt.clone());
    Some(attempt)
}

/// Delivers once more what an attempt delivered.
pub(super) async fn redeliver(world: &Shared, id: u64) -> Option<DeliveryAttempt> {
    let former = {
        let world = lock(world);
        world
            .attempts
            .iter()
            .find(|attempt| attempt.id == id)?
            .clone()
    };
    deliver(world, &former.event, former.payload, Some(former.guid)).await
}

/// What the webhook answers; nothing when it does not.
async fn post(target: &HookTarget, event: &str, guid: &str, payload: String) -> Option<u16> {
    let secrets = SecretSet::new([Secret::new(&target.secret)]).ok()?;
    let request = hyper::Request::post(&target.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "GitHub-Hookshot/fake")
        .header(EVENT_HEADER, event)
        .header(DELIVERY_HEADER, guid)
        .header(SIGNATURE_HEADER, secrets.sign(payload.as_bytes()))
        .body(Full::new(Bytes::from(payload)))
        .ok()?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.ok()?;
    Some(answer.status().as_u16())
}
