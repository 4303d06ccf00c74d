//! The system call filters of a guest, as the daemon stores and sends them.
//!
//! ```text
//! count   u32, little-endian
//! filter  for each, the oldest first: its length as u32, little-endian; its instructions, 8 bytes each, as in memory
//! ```
//!
//! The kernel verifies the instructions. The limits here bound what this program reads.

use std::io::{self, Read};

use crate::kernel::{self, Filter, MAX_INSTRUCTIONS};

/// The maximum number of filters.
const MAX_FILTERS: usize = 64;

/// The kernel's limit for all filters of a process together, in instructions.
const MAX_TOTAL: usize = 32768;

/// The maximum length of an encoded list, in bytes.
const MAX_BYTES: usize = 4 + 4 * MAX_FILTERS + 8 * MAX_TOTAL;

/// Returns the encoded list.
pub(crate) fn encode(filters: &[Filter]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = number(filters.len()).to_vec();
    for filter in filters {
        bytes.extend(number(filter.len()));
        for instruction in filter {
            bytes.extend(instruction.to_ne_bytes());
        }
    }
    bytes
}

/// Decodes a list. Rejects one that exceeds a limit, ends early, has no filters or goes on behind them.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<Filter>, String> {
    let count = number(&mut bytes)?;
    if !(1..=MAX_FILTERS).contains(&count) {
        return Err(format!("{count} filters"));
    }
    let mut filters = Vec::new();
    let mut total = 0;
    for _ in 0..count {
        let length = number(&mut bytes)?;
        total += length;
        if !(1..=MAX_INSTRUCTIONS).contains(&length) || total > MAX_TOTAL {
            return Err(format!("a filter of {length} instructions"));
        }
        let (instructions, rest) = bytes
            .split_at_checked(8 * length)
            .ok_or("the list is cut off")?;
        let (instructions, _) = instructions.as_chunks();
        filters.push(
            instructions
                .iter()
                .map(|bytes| u64::from_ne_bytes(*bytes))
                .collect(),
        );
        bytes = rest;
    }
    if bytes.is_empty() {
        Ok(filters)
    } else {
        Err("the list goes on behind its filters".to_owned())
    }
}

fn number(bytes: &mut &[u8]) -> Result<usize, String> {
    let (number, rest) = bytes.split_first_chunk().ok_or("the list is cut off")?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).map_err(|error| error.to_string())
}

/// Receives an encoded list: its length in bytes as u32, little-endian, then the list.
pub(crate) fn receive(mut source: impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    source.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a list of {length} bytes"),
        ));
    }
    let mut bytes = vec![0; length];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Installs all filters of an encoded list, the oldest first. After an error, this process may have some of them.
pub(crate) fn install(list: &[u8]) -> Result<(), String> {
    let filters =
        decode(list).map_err(|error| format!("cannot read the system call filters: {error}"))?;
    for filter in &filters {
        kernel::install(filter)
            .map_err(|error| format!("cannot install a system call filter: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_filters_are_decoded_in_their_order() {
        let filters = vec![vec![1, 2, 3], vec![u64::MAX], vec![4; MAX_INSTRUCTIONS]];
        let bytes = encode(&filters);
        assert_eq!(decode(&bytes), Ok(filters));
        assert!(bytes.len() <= MAX_BYTES);
    }

    #[test]
    fn damaged_lists_are_rejected() {
        let whole = encode(&[vec![1, 2], vec![3]]);
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "cut off at {end}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert!(decode(&longer).is_err());
        assert!(decode(&encode(&[])).is_err(), "no filters");
        assert!(decode(&encode(&[vec![]])).is_err(), "an empty filter");
        assert!(decode(&encode(&[vec![0; MAX_INSTRUCTIONS + 1]])).is_err());
        assert!(decode(&encode(&vec![vec![0]; MAX_FILTERS + 1])).is_err());
        assert!(decode(&encode(&vec![vec![0; MAX_INSTRUCTIONS]; 9])).is_err());
        assert!(decode(&[0xff; 64]).is_err());
    }

    #[test]
    fn received_list_is_bounded() {
        let sent = [&3u32.to_le_bytes()[..], b"abc", b"rest"].concat();
        assert_eq!(receive(&sent[..]).expect("a list"), b"abc");
        assert!(receive(&sent[..6]).is_err(), "cut off");
        let endless = u32::MAX.to_le_bytes();
        let error = receive(endless.chain(io::repeat(0))).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn invalid_filter_is_not_installed() {
        // The kernel rejects it: an unknown instruction.
        let error = install(&encode(&[vec![u64::MAX]])).expect_err("rejected");
        assert!(error.contains("cannot install"), "{error}");
    }
}
