use axum::response::Response;
use hyper::StatusCode;

use crate::{
    hub::Hub,
    site::{Asked, plain},
};

pub(crate) async fn answer(_hub: &Hub, _asked: Asked) -> Response {
    plain(StatusCode::NOT_FOUND, "not yet\n")
}
