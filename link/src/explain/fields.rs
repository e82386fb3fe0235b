//! The fields of one direction of a connection, decompressed (RFC 7541), and what may be shown of them.
//!
//! Invariant: the memory is bounded, whatever the bytes say: a dynamic table, one field block, and a number of lines.

use crate::headers::is_secret;

#[cfg(feature = "explain")]
type Decoder = loona_hpack::Decoder<'static>;

/// Stands in where the package isn't built.
#[cfg(not(feature = "explain"))]
#[derive(Default)]
struct Decoder;

#[cfg(not(feature = "explain"))]
impl Decoder {
    fn set_max_allowed_table_size(&mut self, _: usize) {}

    fn decode_with_cb(
        &mut self,
        _: &[u8],
        _: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        Err("this program was built without HPACK")
    }
}

/// What one side's field blocks are read with.
pub(super) struct Fields {
    /// `None` once a block couldn't be read: each block counts on all before it.
    decoder: Option<Decoder>,
    /// The block so far.
    block: Vec<u8>,
    /// It has more bytes than are kept.
    cut: bool,
}

impl Default for Fields {
    fn default() -> Self {
        let mut fields = Self { decoder: Some(Decoder::default()), block: Vec::new(), cut: false };
        fields.allow(USUAL_TABLE);
        fields
    }
}

impl Fields {
    /// As large as the reader lets the dynamic table be (SETTINGS_HEADER_TABLE_SIZE).
    pub(super) fn allow(&mut self, size: u32) {
        if let Some(decoder) = &mut self.decoder {
            decoder.set_max_allowed_table_size(size.min(LARGEST_TABLE) as usize);
        }
    }

    /// Something of the direction went by unseen.
    pub(super) fn lose(&mut self) {
        self.decoder = None;
    }

    /// Takes a part of a block, which may lack its end.
    pub(super) fn add(&mut self, part: &[u8], whole: bool) {
        let room = MOST_BLOCK.saturating_sub(self.block.len());
        self.block.extend_from_slice(part.get(..room).unwrap_or(part));
        self.cut |= !whole || part.len() > room;
    }

    /// A line for each field of the block, which is complete.
    pub(super) fn take(&mut self) -> Vec<String> {
        let block = std::mem::take(&mut self.block);
        if std::mem::take(&mut self.cut) {
            self.lose();
        }
        self.read(&block)
    }

    fn read(&mut self, block: &[u8]) -> Vec<String> {
        let Some(decoder) = &mut self.decoder else {
            return vec![
                "(its fields can't be read: they count on fields that weren't seen)".into(),
            ];
        };
        let (mut lines, mut more) = (Vec::new(), 0_usize);
        let read = decoder.decode_with_cb(block, |name, value| match lines.len() < MOST_LINES {
            true => lines.push(shown(&name, &value)),
            false => more += 1,
        });
        if more > 0 {
            lines.push(format!("({more} more fields)"));
        }
        if let Err(err) = read {
            self.decoder = None;
            lines.push(format!("(the rest can't be read: {err})"));
        }
        lines
    }
}

/// One field as a line. A secret is masked, and so is a query, which often holds one.
fn shown(name: &[u8], value: &[u8]) -> String {
    let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
    let name = text(name, LONGEST_NAME);
    if is_secret(&lower) {
        return format!("{name}: (masked, {} bytes)", value.len());
    }
    let queried = QUERIED.contains(&lower.as_str());
    match value.iter().position(|byte| *byte == b'?').filter(|_| queried) {
        Some(query) => format!("{name}: {}?…", text(value.get(..query).unwrap_or(value), LONGEST)),
        None => format!("{name}: {}", text(value, LONGEST)),
    }
}

/// The first bytes of what a peer chose, with everything escaped that a terminal might obey.
pub(super) fn text(bytes: &[u8], most: usize) -> String {
    let part = String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes));
    let escaped: String = part.chars().flat_map(char::escape_debug).collect();
    // Quotes are harmless here.
    let plain = escaped.replace("\\\"", "\"").replace("\\'", "'");
    if bytes.len() > most { plain + "…" } else { plain }
}

/// Fields that hold a URL.
const QUERIED: [&str; 7] =
    [":path", "referer", "location", "content-location", "destination", "link", "refresh"];
/// Until SETTINGS say otherwise (RFC 9113 §6.5.2).
const USUAL_TABLE: u32 = 4096;
/// What browsers use.
const LARGEST_TABLE: u32 = 64 * 1024;
/// Bytes of a compressed block: as much as a whole list of fields may have on a tunnel.
const MOST_BLOCK: usize = crate::limits::TUNNEL_HEADER_LIST as usize;
/// Of one block; a byte can stand for a field.
const MOST_LINES: usize = 100;
const LONGEST_NAME: usize = 80;
const LONGEST: usize = 200;
