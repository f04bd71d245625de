//! What `deploy/vagrant` needs that Vagrant does not have: a box that needs no network.

mod base;
mod guest;

use anyhow::Result;

use crate::console;

/// Makes the box.
pub fn make_box() -> Result<()> {
    let file = base::ensure()?;
    let file = file.display();
    console::say(&format!(
        "{file}\nadd it:  vagrant box add --force --name sheath {file}\nuse it:  SHEATH_BOX=sheath vagrant up"
    ));
    Ok(())
}
