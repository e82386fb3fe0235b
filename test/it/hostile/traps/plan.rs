//! What an exchange is to be, and where it is broken off.

use ptth_test::Dice;

/// When a request is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum When {
    /// As soon as its head is there.
    AtOnce,
    /// When its body has come.
    After,
    Never,
}

/// One exchange, and where it is broken off.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) when: When,
    pub(super) upload: usize,
    pub(super) download: usize,
    /// How much of both bodies moves before; the response's head counts as one more byte.
    pub(super) point: usize,
    /// Whether who asks gives the stream credit for what he takes; else its window shuts.
    pub(super) generous: bool,
}

impl Plan {
    /// Nothing is broken off.
    pub(super) fn whole(upload: usize, download: usize) -> Self {
        Self { when: When::After, upload, download, point: usize::MAX, generous: true }
    }

    pub(super) fn draw(dice: &mut Dice) -> Self {
        let upload = if dice.one_in(4) { size(dice) } else { 0 };
        let download = size(dice);
        let when = match dice.below(8) {
            0 => When::Never,
            1..4 => When::After,
            _ => When::AtOnce,
        };
        let point = match dice.below(8) {
            0 => 0,
            1 => 1,
            2 => usize::MAX,
            _ => dice.below((upload + download + 2) as u64) as usize,
        };
        Self { when, upload, download, point, generous: !dice.one_in(4) }
    }

    pub(super) fn method(&self) -> &'static str {
        if self.upload == 0 { "GET" } else { "POST" }
    }

    pub(super) fn path(&self) -> String {
        format!("/{:?}/{}", self.when, self.download)
    }

    /// What [`Plan::path`] asks for.
    pub(super) fn parse(path: &str) -> (When, usize) {
        let mut parts = path.split('/').skip(1);
        let when = match parts.next() {
            Some("AtOnce") => When::AtOnce,
            Some("After") => When::After,
            _ => When::Never,
        };
        (when, parts.next().and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// Mostly of one frame, sometimes of more than any window.
fn size(dice: &mut Dice) -> usize {
    let most = match dice.below(10) {
        0 => 1,
        1..6 => 20_000,
        6..9 => 200_000,
        _ => 2_000_000,
    };
    dice.below(most) as usize
}
