//! A client that says something to an echo.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(10);

pub fn say(to: SocketAddr, text: &str) -> Result<()> {
    let heard = exchange(to, text.as_bytes()).with_context(|| format!("talking with {to}"))?;
    ensure!(heard == text.as_bytes(), "{to} says something else");
    Ok(())
}

fn exchange(to: SocketAddr, words: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(words)?;
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard)?;
    Ok(heard)
}

/// A new connection over which one byte has gone there and back.
pub fn greet(to: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}
