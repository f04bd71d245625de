//! A plain copy relay: two of them are the limit of what any pair of proxies in user space can reach.

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use super::Way;

/// For each direction of each flow.
const BUFFER_BYTES: usize = 256 * 1024;

pub fn serve(ways: &[Way]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut listeners = Vec::new();
        for way in ways {
            let listener = TcpListener::bind(way.listen).await;
            let listener = listener.with_context(|| format!("cannot listen on {}", way.listen))?;
            listeners.push(tokio::spawn(accept(listener, *way)));
        }
        for listener in listeners {
            listener.await??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, way: Way) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        // What ends one flow is no concern of the others.
        tokio::spawn(async move { relay(stream, way).await.ok() });
    }
}

async fn relay(mut client: TcpStream, way: Way) -> std::io::Result<()> {
    let mut server = TcpStream::connect(way.forward).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
