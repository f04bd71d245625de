//! An OCI archive: a tar file with an image layout in it (OCI Image Format Specification 1.1, "Image Layout").

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::Image;
use super::files::{Entry, Files};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes an image. A file that is there is replaced when the new one is complete.
///
/// # Errors
/// When a file of the image cannot be read, or the archive not written.
pub fn write(image: &Image, output: &Path) -> Result<()> {
    let context = || format!("cannot write {}", output.display());
    let dir = output.parent().context("an archive's directory")?;
    let file = tempfile::NamedTempFile::new_in(dir).with_context(context)?;
    let mut layer = layer(&image.files, dir)?;
    let config = blob(
        CONFIG,
        &json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": image.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)] },
        }),
    );
    let manifest = blob(
        MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor,
            "layers": [descriptor(LAYER, &layer.digest, layer.size)],
        }),
    );
    let mut described = manifest.descriptor.clone();
    // The first is what containerd calls it.
    let tag = image.name.rsplit(':').next().unwrap_or_default();
    described["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [described] });

    let mut tar = Builder::new(BufWriter::new(file));
    let write = || -> io::Result<tempfile::NamedTempFile> {
        for (path, bytes) in [
            ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string()),
            ("index.json", index.to_string()),
            (&config.path, config.text),
            (&manifest.path, manifest.text),
        ] {
            tar.append_data(&mut header(0o644, bytes.len() as u64), path, bytes.as_bytes())?;
        }
        let path = format!("blobs/sha256/{}", layer.digest);
        tar.append_data(&mut header(0o644, layer.size), path, &mut layer.file)?;
        tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)
    };
    write().and_then(|file| Ok(file.persist(output)?)).with_context(context)?;
    Ok(())
}

/// A JSON document of the layout.
struct Blob {
    path: String,
    text: String,
    descriptor: Value,
}

fn blob(kind: &str, content: &Value) -> Blob {
    let text = content.to_string();
    let digest = hex(aws_lc_rs::digest::digest(&SHA256, text.as_bytes()).as_ref());
    let descriptor = descriptor(kind, &digest, text.len() as u64);
    Blob { path: format!("blobs/sha256/{digest}"), text, descriptor }
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

/// The only layer, in a file without a name.
struct Layer {
    file: File,
    digest: String,
    size: u64,
}

fn layer(files: &Files, dir: &Path) -> Result<Layer> {
    let file = tempfile::tempfile_in(dir).context("cannot write a layer")?;
    let mut tar =
        Builder::new(Hashed { inner: BufWriter::new(file), hash: Hash::new(&SHA256), size: 0 });
    for (path, entry) in files.entries() {
        append(&mut tar, path, entry).with_context(|| format!("{path}, for the image"))?;
    }
    let Hashed { inner, hash, size } = tar.into_inner().context("cannot write a layer")?;
    let mut file = inner.into_inner().context("cannot write a layer")?;
    file.rewind().context("cannot read the layer")?;
    Ok(Layer { file, digest: hex(hash.finish().as_ref()), size })
}

fn append(tar: &mut Builder<impl Write>, path: &str, entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Directory { mode } => {
            let mut header = header(*mode, 0);
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Entry::Link { to } => {
            let mut header = header(0o777, 0);
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, path, to)
        }
        Entry::Text { mode, text } => {
            tar.append_data(&mut header(*mode, text.len() as u64), path, text.as_bytes())
        }
        Entry::Copy { mode, from } => {
            let file = File::open(from)?;
            let size = file.metadata()?.len();
            // A file that grows meanwhile must not spoil the archive.
            tar.append_data(&mut header(*mode, size), path, file.take(size))
        }
    }
}

/// Nothing of who wrote it, or when.
fn header(mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

struct Hashed<W> {
    inner: W,
    hash: Hash,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As Go calls it, and with it OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    fn image() -> Image {
        let mut image = Image::empty("sheath.dev/test:1");
        image.add_text("/srv/a/deep/page.html", "hello\n");
        image.entrypoint(&["/usr/bin/true", "now"]);
        image
    }

    fn members(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, bytes)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn what_the_index_names_is_there_and_is_what_its_digest_says() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("image.tar");
        image().write(&output).unwrap();
        let members = members(&fs::read(&output).unwrap());
        let follow = |descriptor: &Value| -> Vec<u8> {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &members[&format!("blobs/sha256/{digest}")];
            assert_eq!(hex(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref()), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&members["index.json"]).unwrap();
        let described = &index["manifests"][0];
        assert_eq!(described["annotations"]["io.containerd.image.name"], "sheath.dev/test:1");
        let manifest: Value = serde_json::from_slice(&follow(described)).unwrap();
        let config: Value = serde_json::from_slice(&follow(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/true", "now"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = self::members(&follow(&manifest["layers"][0]));
        assert_eq!(layer["srv/a/deep/page.html"], b"hello\n");
        assert!(layer.contains_key("srv/a/deep/") && layer.contains_key("tmp/"));
    }

    #[test]
    fn the_same_content_is_the_same_archive() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| {
            let output = dir.path().join(name);
            image().write(&output).unwrap();
            fs::read(output).unwrap()
        });
        assert!(one == other);
    }
}
