//! The thread `writer`: carries the core's requests to the store, one at a time, and its replies back.
//!
//! It decides nothing and repeats nothing; each request ends within the store's own deadline. It ends when the requests' sender is dropped.

use crate::core::{Input, StoreReply, StoreRequest};
use crate::inbox::Door;
use crate::queue::Receiver;
use crate::store::Store;
use crate::threads;

/// Serves requests until there are no more.
pub fn run(mut store: impl Store, mut requests: Receiver<StoreRequest>, door: &Door) {
    while let Ok(request) = requests.receive(None) {
        threads::rehearse();
        let reply = serve(&mut store, request).unwrap_or_else(StoreReply::Failed);
        door.put(Input::Stored(reply));
    }
}

fn serve(
    store: &mut impl Store,
    request: StoreRequest,
) -> Result<StoreReply, crate::store::StoreError> {
    Ok(match request {
        StoreRequest::Open => StoreReply::Opened(store.open()?),
        StoreRequest::Take(claims) => StoreReply::Taken(store.take(&claims)?),
        StoreRequest::Apply(batch) => StoreReply::Applied(store.apply(&batch)?),
        StoreRequest::Beat(claims) => StoreReply::Beaten(store.beat(&claims)?),
        StoreRequest::Audit(host) => StoreReply::Audited(host, Box::new(store.audit(host)?)),
        StoreRequest::Bury(overdue) => StoreReply::Buried(store.bury(&overdue)?),
        StoreRequest::Sweep => StoreReply::Swept(store.sweep()?),
        StoreRequest::Once(asks) => StoreReply::Once(store.once(&asks)?),
        StoreRequest::Release(hosts) => {
            store.release(&hosts)?;
            StoreReply::Released
        }
    })
}
