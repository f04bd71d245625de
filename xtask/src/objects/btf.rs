//! BTF (<https://docs.kernel.org/bpf/btf.html>), as far as it takes to compare types: names are read, numbers are what they are.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

const MAGIC: u16 = 0xeb9f;

/// A type. Those that it consists of are named by their places in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    name: String,
    /// Kind, number of members, and a flag.
    info: u32,
    size_or_type: u32,
    members: Vec<Member>,
}

/// What follows for each member, or once. Not all have a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: Option<String>,
    numbers: Vec<u32>,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (kind {}, {}):", self.name, kind(self.info), self.size_or_type)?;
        for member in &self.members {
            write!(f, " {}{:?}", member.name.as_deref().unwrap_or_default(), member.numbers)?;
        }
        Ok(())
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// How what follows a type looks: how many members, whether they begin with a name, and how many numbers each has.
fn shape(info: u32) -> Result<(u32, bool, usize)> {
    let members = info & 0xffff;
    Ok(match kind(info) {
        // Pointers, forward declarations, other names, qualifiers, functions, floats, tags of types.
        2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => (0, false, 0),
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => (1, false, 1),
        // Arrays.
        3 => (1, false, 3),
        // Structs, unions, and enums of 64 bits.
        4 | 5 | 19 => (members, true, 2),
        // Enums, prototypes of functions.
        6 | 13 => (members, true, 1),
        // Sections.
        15 => (members, false, 3),
        other => bail!("BTF has a type of the unknown kind {other}"),
    })
}

/// Reads all types out of a section `.BTF`.
///
/// # Errors
/// When it is not well formed.
pub fn read(section: &[u8]) -> Result<Vec<Type>> {
    let magic = section.get(..2).context("BTF ends in its header")?;
    ensure!(magic == MAGIC.to_le_bytes(), "BTF does not begin as it should");
    let mut header = Words(section.get(4..).unwrap_or_default());
    let [length, types, types_len, strings, strings_len] =
        [header.next()?, header.next()?, header.next()?, header.next()?, header.next()?];
    let part = |offset: u32, size: u32| {
        let begin = length as usize + offset as usize;
        section.get(begin..begin + size as usize).context("BTF ends before its header says so")
    };
    let strings = part(strings, strings_len)?;
    let mut words = Words(part(types, types_len)?);
    let mut read = Vec::new();
    while !words.0.is_empty() {
        read.push(read_type(&mut words, strings)?);
    }
    Ok(read)
}

fn read_type(words: &mut Words, strings: &[u8]) -> Result<Type> {
    let name = string(strings, words.next()?)?;
    let (info, size_or_type) = (words.next()?, words.next()?);
    let (count, is_named, numbers) = shape(info)?;
    let mut members = Vec::new();
    for _ in 0..count {
        let name = is_named.then(|| string(strings, words.next()?)).transpose()?;
        let numbers = (0..numbers).map(|_| words.next()).collect::<Result<_>>()?;
        members.push(Member { name, numbers });
    }
    Ok(Type { name, info, size_or_type, members })
}

fn string(strings: &[u8], offset: u32) -> Result<String> {
    let rest = strings.get(offset as usize..).context("BTF names something beyond its names")?;
    let end = rest.iter().position(|byte| *byte == 0).context("BTF has a name without an end")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// Numbers of 32 bits.
struct Words<'b>(&'b [u8]);

impl Words<'_> {
    fn next(&mut self) -> Result<u32> {
        let (word, rest) = self.0.split_first_chunk().context("BTF ends within a type")?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*word))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A section with one type, named `T`.
    fn section(words: &[u32]) -> Vec<u8> {
        let strings = b"\0T\0field\0";
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut section = vec![0x9f, 0xeb, 1, 0];
        let lengths = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        section.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
        [section, types, strings.to_vec()].concat()
    }

    /// Where in an object the offset of a struct's member stands.
    pub fn member(object: &[u8], name: &str, member: &str) -> usize {
        let begin = object.windows(4).position(|word| word == [0x9f, 0xeb, 1, 0]).unwrap();
        let words = |at: usize| u32::from_le_bytes(object[at..at + 4].try_into().unwrap());
        let [length, types, size, strings] = [4, 8, 12, 16].map(|at| words(begin + at) as usize);
        let text = |offset: u32| string(&object[begin + length + strings..], offset).unwrap();
        let (mut at, end) = (begin + length + types, begin + length + types + size);
        while at < end {
            let (count, is_named, numbers) = shape(words(at + 4)).unwrap();
            let size = 4 * (numbers + usize::from(is_named));
            let members = (0..count as usize).map(|index| at + 12 + index * size);
            if text(words(at)) == name && kind(words(at + 4)) == 4 {
                let found = members.clone().find(|at| text(words(*at)) == member).unwrap();
                return found + 8;
            }
            at += 12 + count as usize * size;
        }
        panic!("no {name}")
    }

    #[test]
    fn a_struct_is_read_with_the_names_and_places_of_its_fields() {
        let read = read(&section(&[1, 4 << 24 | 1, 8, 3, 7, 32])).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].to_string(), "`T` (kind 4, 8): field[7, 32]");
    }

    #[test]
    fn types_that_end_too_early_or_are_unknown_are_errors() {
        for words in
            [&[1, 4 << 24 | 2, 8, 3, 7, 32][..], &[1, 31 << 24, 0], &[99, 2 << 24, 0], &[1]]
        {
            assert!(read(&section(words)).is_err(), "{words:?}");
        }
        let whole = section(&[1, 2 << 24, 0]);
        assert_eq!(read(&whole).unwrap().len(), 1);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end} bytes");
        }
    }
}
