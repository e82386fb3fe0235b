//! To be described.

/// What visitors speak. Public for the fuzz targets only; nothing outside this crate may rely on it.
#[doc(hidden)]
pub mod public {
    pub mod strict;
}
