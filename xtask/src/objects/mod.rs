//! The BPF objects for two kinds of machines, compared. What the kernel gets of them must be the same: then what is tested with
//! the one holds for the other, and both agree with the agent about what is in maps.
//!
//! They are the same as long as no program reads what the kernel lays out in another way on another machine, such as registers.
//! Should one do so some day, this says where, and somebody has to think about it.

mod btf;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use object::elf::{EM_BPF, FileHeader64, SHF_ALLOC, SHT_SYMTAB};
use object::endian::Endianness;
use object::read::elf::{FileHeader, Rel, SectionHeader, SectionTable, Sym, SymbolTable};

use btf::Type;

type Header = FileHeader64<Endianness>;

/// What the kernel gets of an object.
struct Object {
    /// By name: programs, definitions of maps, and data.
    sections: BTreeMap<String, Section>,
    /// Of these; for maps they say how large keys and values are.
    types: Vec<Type>,
}

#[derive(Default, PartialEq, Eq)]
struct Section {
    bytes: Vec<u8>,
    relocations: Vec<Relocation>,
}

/// A place in a section where the loader writes what something has become.
#[derive(PartialEq, Eq)]
struct Relocation {
    offset: u64,
    kind: u32,
    symbol: String,
    /// The symbol's section, and where in it.
    target: (String, u64),
}

/// Sees to it that two objects are the same to the kernel.
///
/// # Errors
/// When they are not, or one is no BPF object for little-endian machines.
pub fn compare(one: &Path, other: &Path) -> Result<()> {
    let (first, second) = (open(one)?, open(other)?);
    if let Some(difference) = first.difference(&second) {
        bail!("{} and {} differ: {difference}", one.display(), other.display());
    }
    Ok(())
}

fn open(path: &Path) -> Result<Object> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Object::read(&bytes).with_context(|| format!("{} cannot be compared", path.display()))
}

impl Object {
    fn read(bytes: &[u8]) -> Result<Self> {
        let header = Header::parse(bytes)?;
        let endian = header.endian()?;
        let machine = header.e_machine(endian);
        ensure!(machine == EM_BPF, "it is no BPF object (ELF's number {machine})");
        ensure!(endian == Endianness::Little, "it is for big-endian machines");
        let table = header.sections(endian, bytes)?;
        let symbols = table.symbols(endian, bytes, SHT_SYMTAB)?;
        let mut sections: BTreeMap<String, Section> = BTreeMap::new();
        let mut types = None;
        for section in table.iter() {
            let name = name(&table, section)?;
            let content = section.data(endian, bytes)?;
            if name == ".BTF" {
                types = Some(btf::read(content)?);
            } else if is_loaded(section) {
                sections.entry(name).or_default().bytes = content.to_vec();
            } else if let Some((relocations, _)) = section.rel(endian, bytes)? {
                let target = table.section(section.info_link(endian))?;
                if is_loaded(target) {
                    let section = sections.entry(self::name(&table, target)?).or_default();
                    let read = |relocation| read_relocation(&table, &symbols, relocation);
                    section.relocations = relocations.iter().map(read).collect::<Result<_>>()?;
                }
            }
        }
        Ok(Self { sections, types: types.context("it has no BTF")? })
    }

    /// The first thing in which another one differs.
    fn difference(&self, other: &Self) -> Option<String> {
        let [names, others] = [self, other].map(|object| object.sections.keys());
        if let Some(name) = names.chain(others).find(|name| {
            let [section, its] = [self, other].map(|object| object.sections.get(*name));
            section != its
        }) {
            return Some(format!("section {name}"));
        }
        let types = self.types.iter().zip(&other.types).find(|(one, other)| one != other);
        if let Some((one, other)) = types {
            return Some(format!("type {one} is {other}"));
        }
        let [count, its] = [self, other].map(|object| object.types.len());
        (count != its).then(|| format!("{count} types are {its}"))
    }
}

fn name(
    table: &SectionTable<Header>,
    section: &<Header as FileHeader>::SectionHeader,
) -> Result<String> {
    let name = table.section_name(Endianness::Little, section)?;
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn is_loaded(section: &<Header as FileHeader>::SectionHeader) -> bool {
    section.sh_flags(Endianness::Little) & u64::from(SHF_ALLOC) != 0
}

fn read_relocation(
    table: &SectionTable<Header>,
    symbols: &SymbolTable<Header>,
    relocation: &<Header as FileHeader>::Rel,
) -> Result<Relocation> {
    let endian = Endianness::Little;
    let index = relocation.symbol(endian).context("a relocation without a symbol")?;
    let symbol = symbols.symbol(index)?;
    let section = symbols.symbol_section(endian, symbol, index)?;
    let section = section.map(|index| name(table, table.section(index)?)).transpose()?;
    Ok(Relocation {
        offset: relocation.r_offset(endian),
        kind: relocation.r_type(endian),
        symbol: String::from_utf8_lossy(symbols.symbol_name(endian, symbol)?).into_owned(),
        target: (section.unwrap_or_default(), symbol.st_value(endian)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    /// As the agent embeds it.
    fn built() -> Vec<u8> {
        fs::read(workspace::bpf_object()).expect("built by `cargo xtask build-ebpf`")
    }

    #[test]
    fn an_instruction_a_relocation_and_a_type_that_differ_are_found() {
        let built = built();
        let object = || Object::read(&built).unwrap();
        assert_eq!(object().difference(&object()), None);
        assert!(object().sections.contains_key("cgroup/connect4"));
        assert!(object().types.len() > 100);

        let mut other = object();
        other.sections.get_mut("sk_lookup").unwrap().bytes[9] ^= 1;
        assert_eq!(object().difference(&other).unwrap(), "section sk_lookup");

        let mut other = object();
        other.sections.get_mut("sockops").unwrap().relocations[3].target.1 += 8;
        assert_eq!(other.difference(&object()).unwrap(), "section sockops");

        let mut other = object();
        other.sections.remove(".maps");
        assert_eq!(object().difference(&other).unwrap(), "section .maps");
        assert_eq!(other.difference(&object()).unwrap(), "section .maps");

        let mut other = object();
        other.types.pop();
        assert!(object().difference(&other).unwrap().contains("types"));
    }

    /// Where a field of what is in a map lies.
    #[test]
    fn a_field_that_lies_elsewhere_is_found() {
        let mut built = built();
        let object = Object::read(&built).unwrap();
        let offset = btf::tests::member(&built, "FlowKey", "port");
        built[offset] ^= 0x20;
        let difference = object.difference(&Object::read(&built).unwrap());
        assert!(difference.unwrap().contains("FlowKey"));
    }

    #[test]
    fn what_is_no_bpf_object_is_not_compared() {
        let mut built = built();
        for (at, value) in [(18, 62), (5, 2)] {
            let before = std::mem::replace(&mut built[at], value);
            assert!(Object::read(&built).is_err(), "byte {at}");
            built[at] = before;
        }
        assert!(Object::read(&built).is_ok());
        assert!(Object::read(b"").is_err());
    }
}
