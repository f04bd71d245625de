//! The images of `cargo xtask image`.

use std::path::Path;

use anyhow::{Result, bail};
use sheath_tests::cluster::image::Image;

/// Writes one, of what is named.
pub fn write(output: &Path, tag: &str, content: &[&str]) -> Result<()> {
    let image = match content {
        ["agent", program] => Image::of_programs(tag, &[program])?,
        ["probe"] => Image::probe(tag)?,
        ["debian", packages] => Image::of_packages(tag, Path::new(packages))?,
        _ => bail!("no such content of an image: {content:?}"),
    };
    image.write(output)?;
    eprintln!("{}: {tag}", output.display());
    Ok(())
}
