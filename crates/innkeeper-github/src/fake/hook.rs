//! Deliveries to a webhook, signed as GitHub signs them.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use innkeeper_model::Secret;
use jiff::Timestamp;

use super::Shared;
use super::world::{DeliveryAttempt, HookTarget};
use crate::event::{DELIVERY_HEADER, EVENT_HEADER};
use crate::signature::{SIGNATURE_HEADER, SecretSet};

/// Delivers a payload: a new delivery, or a redelivery of the given id.
pub(super) async fn deliver(
    world: &Shared,
    event: &str,
    payload: String,
    redelivery_of: Option<String>,
) -> Option<DeliveryAttempt> {
    let (target, id) = {
        let mut world = world.lock();
        (world.hook.clone()?, world.id())
    };
    let redelivery = redelivery_of.is_some();
    // Unique even after a restart of the fake, which counts from 1 again.
    let seconds = Timestamp::now().as_second();
    let guid = redelivery_of.unwrap_or_else(|| format!("{seconds:08x}-0000-4000-8000-{id:012x}"));
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
    world.lock().attempts.push(attempt.clone());
    Some(attempt)
}

/// Redelivers the payload of an attempt.
pub(super) async fn redeliver(world: &Shared, id: u64) -> Option<DeliveryAttempt> {
    let former = {
        let world = world.lock();
        world
            .attempts
            .iter()
            .find(|attempt| attempt.id == id)?
            .clone()
    };
    deliver(world, &former.event, former.payload, Some(former.guid)).await
}

/// Posts to the webhook and returns the response's status. `None` without a response.
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
    let response = client.request(request).await.ok()?;
    Some(response.status().as_u16())
}
