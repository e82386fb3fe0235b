//! What `auth` brings, until it is there.

use std::fmt;

/// What lets a backend in.
pub trait Credential: Send + Sync + fmt::Debug {}
