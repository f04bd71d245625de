//! An agent's stream of the directory, which says of its pods whatever it likes.

use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::client::{Answer, Caller};
use crate::directory::api::directory_client::DirectoryClient;
use crate::directory::api::{
    Begin, Delta, FollowRequest, FollowResponse, Observed, follow_request, follow_response,
};

/// A stream of the directory.
pub struct Following<'c> {
    caller: &'c Caller,
    requests: mpsc::Sender<FollowRequest>,
    answers: Streaming<FollowResponse>,
}

impl Caller {
    /// Begins to follow, with nothing known and no pod protected.
    ///
    /// # Errors
    /// What the controller says.
    pub fn follow(&self) -> Answer<Following<'_>> {
        let (requests, sent) = mpsc::channel(4096);
        let begin =
            Begin { position: None, observed: Some(Observed { all: true, ..Observed::default() }) };
        let begin = FollowRequest { message: Some(follow_request::Message::Begin(begin)) };
        requests.try_send(begin).expect("room for a message");
        let answers = self.runtime.block_on(async {
            let mut request = self.request(ReceiverStream::new(sent));
            request.set_timeout(Duration::from_secs(120));
            let mut client = DirectoryClient::new(self.channel.clone());
            Ok::<_, Status>(client.follow(request).await?.into_inner())
        })?;
        Ok(Following { caller: self, requests, answers })
    }
}

impl Following<'_> {
    /// Says which pods are protected now, and which are not any more. False if the stream has ended.
    pub fn say(&self, protected: &[String], unprotected: &[String]) -> bool {
        let bytes = |uid: &String| {
            let digits = uid.replace('-', "");
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("a uid");
            (0..16).map(|number| byte(2 * number)).collect::<Vec<u8>>()
        };
        let all = |uids: &[String]| uids.iter().map(bytes).collect();
        let observed =
            Observed { all: false, protected: all(protected), unprotected: all(unprotected) };
        let message = Some(follow_request::Message::Observed(observed));
        self.requests.try_send(FollowRequest { message }).is_ok()
    }

    /// How many entries change until nothing has been heard for so long.
    ///
    /// # Errors
    /// How the stream has ended, if it has.
    pub fn changes(&mut self, silence: Duration) -> Answer<usize> {
        let mut changes = 0;
        while let Some(answer) = self.next(silence)? {
            if let Some(follow_response::Message::Delta(bytes)) = answer.message {
                let delta = Delta::decode(&bytes[..]).expect("a delta");
                changes += delta.entries.map_or(0, |entries| entries.entries.len());
            }
        }
        Ok(changes)
    }

    /// What comes next; `None` if nothing does for so long.
    ///
    /// # Errors
    /// How the stream has ended, if it has.
    pub fn next(&mut self, patience: Duration) -> Answer<Option<FollowResponse>> {
        let Self { caller, answers, .. } = self;
        let next = async { tokio::time::timeout(patience, answers.message()).await };
        match caller.runtime.block_on(next) {
            Ok(Ok(Some(answer))) => Ok(Some(answer)),
            Ok(Ok(None)) => Err(Status::cancelled("the stream has ended")),
            Ok(Err(status)) => Err(status),
            Err(_) => Ok(None),
        }
    }
}
