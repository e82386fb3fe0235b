//! Field blocks (RFC 7541): written without indexing, read without a dynamic table.

/// Fields as literals without indexing.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(block: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push(length as u8 | 128);
        length >>= 7;
    }
    block.push(length as u8);
}

/// Reads a block that makes no use of the dynamic table.
pub(super) fn read(block: &[u8]) -> Vec<(String, String)> {
    let mut block = block;
    let mut fields = Vec::new();
    while let Some(&first) = block.first() {
        match first {
            0x80.. => {
                let index = integer(&mut block, 7);
                let (name, value) = STATIC.get(index - 1).copied().unwrap_or(("#", ""));
                fields.push((name.replace('#', &format!("#{index}")), value.to_owned()));
            }
            0x20..0x40 => {
                integer(&mut block, 5);
            }
            _ => {
                let index = integer(&mut block, if first >= 0x40 { 6 } else { 4 });
                let name = match index {
                    0 => string(&mut block),
                    index => STATIC.get(index - 1).map_or(format!("#{index}"), |f| f.0.to_owned()),
                };
                fields.push((name, string(&mut block)));
            }
        }
    }
    fields
}

fn integer(block: &mut &[u8], prefix: u32) -> usize {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(take(block)) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let byte = usize::from(take(block));
            value += (byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
    }
    value
}

fn take(block: &mut &[u8]) -> u8 {
    let (first, rest) = block.split_first().expect("a whole block");
    *block = rest;
    *first
}

fn string(block: &mut &[u8]) -> String {
    let huffman = block[0] & 128 != 0;
    let length = integer(block, 7);
    let (text, rest) = block.split_at(length);
    *block = rest;
    if huffman { unhuffman(text) } else { String::from_utf8_lossy(text).into_owned() }
}

/// RFC 7541 Appendix B, as far as text goes. The code is canonical: lengths and order say it all.
fn unhuffman(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut code, mut length) = (0_u32, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        let mut first = 0_u32;
        let mut last = 0;
        for (bits, symbols) in HUFFMAN {
            first <<= bits - last;
            last = bits;
            if bits == length
                && let Some(symbol) =
                    code.checked_sub(first).and_then(|n| symbols.chars().nth(n as usize))
            {
                text.push(symbol);
                (code, length) = (0, 0);
                break;
            }
            first += symbols.chars().count() as u32;
        }
    }
    text
}

const HUFFMAN: [(u32, &str); 10] = [
    (5, "012aceiost"),
    (6, " %-./3456789=A_bdfghlmnpru"),
    (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, "&*,;XZ"),
    (10, "!\"()?"),
    (11, "'+|"),
    (12, "#>"),
    (13, "\0$@[]~"),
    (14, "^}"),
    (15, "<`{"),
];

/// RFC 7541 Appendix A, as far as these tests look.
const STATIC: [(&str, &str); 14] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541 C.4.1 and C.6.1.
    #[test]
    fn huffman_reads_the_examples_of_the_rfc() {
        for (code, text) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0x64, 0x02], "302"),
        ] {
            assert_eq!(unhuffman(code), text);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "x".repeat(5000);
        let written = [(":status", "299"), ("x-long", &long), ("empty", "")];
        let read = read(&block(&written));
        assert_eq!(read, written.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
}
