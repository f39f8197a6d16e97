//! The hand-written service's side of an offer.

use std::fs::File;
use std::sync::Arc;

use broker_protocol::prost::Message;
use broker_protocol::wire::{Frame, HandoffAck, HandoffOffer};
use broker_transport::fd_passing::recv_with_fds;
use broker_transport::passing::{CARRIER, Carrier, claim};
use broker_transport::stream::Stream;

use super::{Fault, Kept, Over, SERVICE, State, dies_of, framed, read, read_body, serve};

/// One connection of a broker, which makes one offer on it.
pub(super) async fn take(broker: Stream, state: Arc<State>) {
    let _ = receive(broker, &state).await;
}

async fn receive(broker: Stream, state: &Arc<State>) -> Result<(), Over> {
    let (mut token, mut carried) = (None, None);
    if CARRIER == Carrier::Message {
        let mut bytes = [0; 16];
        let received = recv_with_fds(&broker, &mut bytes, 1).await.map_err(|_| Over)?;
        if received.len != 16 {
            return Err(Over);
        }
        (token, carried) = (Some(bytes), received.descriptors.into_iter().next());
    }
    read(&broker, 1).await?;
    let few = state.fault == Fault::WantsOffersInFewPieces;
    let body = read_body(&broker, state, few).await.map_err(|_| Over)?;
    let frame = Frame::decode(&body[..]).map_err(|_| Over)?;
    let offer = HandoffOffer::decode(frame.payload.clone()).map_err(|_| Over)?;
    if token.is_some_and(|token| offer.token != token) && state.fault != Fault::AcceptsAnotherToken {
        return Err(Over);
    }
    let passed = claim(carried, offer.handle_value, &broker).ok();
    if passed.is_none() && state.fault != Fault::AcceptsNoDescriptor {
        return Err(Over);
    }
    let passed = match passed {
        Some(passed) => Some(Stream::from_owned_fd(passed).map_err(|_| Over)?),
        None => None,
    };
    if let Some(client) = &passed
        && matches!(client.try_peek(&mut [0]), Ok(0))
    {
        dies_of(Fault::DiesOfAClientThatIsGone, state).await;
    }
    let is_ours = offer.service_name == SERVICE;
    let taken = if is_ours { passed } else { reject(passed, state) };
    let token = if state.fault == Fault::AcknowledgesAnotherToken { vec![0; 16] } else { offer.token };
    let correlation_id = offer.correlation_id;
    let ack = HandoffAck { token, accepted: is_ours, correlation_id, ..HandoffAck::default() };
    let answer = Frame { kind: 1, payload: ack.encode_to_vec().into(), ..frame };
    broker.send_all(&framed(&answer.encode_to_vec())).await.map_err(|_| Over)?;
    if let Some(client) = taken {
        match state.fault {
            Fault::DropsWhatItAccepted => return Ok(()),
            Fault::KeepsACopyOfEachConnection => {
                state.keep(Kept::Connection(client.try_clone_descriptor().unwrap()));
            }
            Fault::LeavesAFileOpenPerOffer => {
                state.keep(Kept::File(File::open(std::env::current_exe().unwrap()).unwrap()));
            }
            _ => {}
        }
        tokio::spawn(serve(client, Arc::clone(state)));
    }
    Ok(())
}

/// Closes it, as it is the broker's again.
fn reject(passed: Option<Stream>, state: &State) -> Option<Stream> {
    if state.fault == Fault::KeepsWhatItRejected {
        passed.into_iter().for_each(|stream| state.keep(Kept::Connection(stream.into_owned_fd())));
    }
    None
}
