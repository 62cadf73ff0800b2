//! What is told over HTTP of this process.

use std::sync::Arc;

use relay_admin::status::{About, Memory};

use crate::limits::memory;

/// What [`relay_admin::status::Status`] is to know. `name`: what people call this relay; `fingerprint`: of the
/// certificate shown now, in hex, where browsers need it; `drain`: [`crate::signals::Stop::asker`].
pub fn about(
    name: &str,
    fingerprint: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    drain: Arc<dyn Fn() + Send + Sync>,
) -> About {
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: name.to_owned(),
        fingerprint,
        memory: Arc::new(|| {
            let memory::Reading { limit, resident, .. } = memory::read();
            Memory { resident, limit: Some(limit) }
        }),
        drain,
    }
}
