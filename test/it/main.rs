//! What must hold, as tests of whole programs. Each carries its number of the acceptance list.

mod exchange;
mod life;
mod simulation;
