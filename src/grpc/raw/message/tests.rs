//! The framing of messages, across frames cut anywhere.

use std::{collections::VecDeque, convert::Infallible, task::Waker};

use http_body::Frame;
use proptest::prelude::*;

use super::*;
use crate::broker::Error;

const LIMIT: usize = 1 << 20;

/// A body of these frames; pending once after each of them, if it hesitates.
struct Frames {
    left: VecDeque<Bytes>,
    hesitates: bool,
    hesitate: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.hesitates && !mem::replace(&mut self.hesitate, true) {
            return Poll::Pending;
        }
        self.hesitate = false;
        Poll::Ready(self.left.pop_front().map(|frame| Ok(Frame::data(frame))))
    }
}

fn reader(frames: impl IntoIterator<Item = Bytes>, hesitates: bool) -> Messages<Frames> {
    let body = Frames { left: frames.into_iter().collect(), hesitates, hesitate: false };
    Messages::new(body, LIMIT, Budget::new(64 << 20))
}

/// Every call is a new future, so state has to be in the reader.
fn read(messages: &mut Messages<Frames>) -> Result<Option<Message>, Refusal> {
    let context = &mut Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(outcome) = std::pin::pin!(messages.next()).poll(context) {
            return outcome;
        }
    }
}

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|message| {
            let mut bytes = vec![0];
            bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(message);
            bytes
        })
        .collect()
}

fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut frames: Vec<Bytes> = cuts.iter().map(|cut| rest.split_to((*cut).min(rest.len()))).collect();
    frames.push(rest);
    frames
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut(
        sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
        cuts in prop::collection::vec(0_usize..40, 0..60),
        hesitates: bool,
    ) {
        let mut messages = reader(cut(&framed(&sent), &cuts), hesitates);
        for expected in &sent {
            let message = read(&mut messages).unwrap().expect("as many messages as were sent");
            prop_assert!(message.chunks.iter().all(|chunk| !chunk.is_empty()));
            prop_assert_eq!(&message.into_bytes()[..], &expected[..]);
        }
        prop_assert!(read(&mut messages).unwrap().is_none());
        prop_assert_eq!(messages.budget.free_bytes(), 64 << 20);
    }
}

#[test]
fn frames_are_kept_and_not_copied() {
    let body = Bytes::from(framed(&[vec![7; 100_000]]));
    let frames = [body.slice(..5), body.slice(5..40_000), body.slice(40_000..)];
    let message = read(&mut reader(frames.clone(), false)).unwrap().unwrap();
    let kept: Vec<*const u8> = message.chunks.iter().map(|chunk| chunk.as_ptr()).collect();
    assert_eq!(kept, [frames[1].as_ptr(), frames[2].as_ptr()]);
    assert_eq!(message.held.bytes(), 98 * 1024);
}

#[test]
fn crumbs_are_gathered() {
    let body = Bytes::from(framed(&[(0_u8..200).cycle().take(50_000).collect()]));
    let frames = (0..body.len()).map(|at| body.slice(at..=at));
    let message = read(&mut reader(frames, false)).unwrap().unwrap();
    assert_eq!(message.chunks.len(), 1);
    assert_eq!(message.into_bytes(), body.slice(PREFIX..));
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_arrives() {
    let length = u32::try_from(LIMIT + 1).unwrap().to_be_bytes();
    let prefix = Bytes::from([[0].as_slice(), &length].concat());
    let mut messages = reader([prefix], false);
    let expected = Error::RequestTooLarge { size: LIMIT as u64 + 1, limit: LIMIT as u64 };
    assert_eq!(read(&mut messages).unwrap_err(), Refusal::Broker(expected));
    assert!(read(&mut messages).unwrap().is_none(), "nothing comes after an error");
}

#[test]
fn what_is_not_a_message_is_refused() {
    for (bytes, part) in [
        (vec![0, 0, 0], "middle of a message"),
        (vec![0, 0, 0, 0, 2, 1], "middle of a message"),
        (vec![9, 0, 0, 0, 0], "byte 9"),
    ] {
        let refusal = read(&mut reader([Bytes::from(bytes.clone())], false)).unwrap_err();
        let Refusal::Broker(Error::Malformed { why, .. }) = refusal else {
            panic!("{bytes:?} gave {refusal:?}")
        };
        assert!(why.contains(part), "{bytes:?} gave {why}");
    }
    let refusal = read(&mut reader([Bytes::from_static(&[1, 0, 0, 0, 0])], false)).unwrap_err();
    assert_eq!(refusal, Refusal::MessageCompressed);
}

#[test]
fn a_call_that_takes_one_message_takes_one() {
    let run = |bytes: Vec<u8>| {
        let mut messages = reader([Bytes::from(bytes)], false);
        let context = &mut Context::from_waker(Waker::noop());
        match std::pin::pin!(only(&mut messages)).poll(context) {
            Poll::Ready(outcome) => outcome.map(Message::into_bytes),
            Poll::Pending => panic!("everything is there"),
        }
    };
    assert_eq!(run(framed(&[vec![1, 2]])).unwrap(), Bytes::from_static(&[1, 2]));
    assert!(run(vec![]).is_err());
    assert!(run(framed(&[vec![1], vec![2]])).is_err());
}

#[test]
fn what_is_missing_of_a_message_is_known() {
    let mut messages = reader([Bytes::from_static(&[0, 0, 0, 0, 9, 1, 2])], true);
    assert_eq!(messages.missing(), None);
    let context = &mut Context::from_waker(Waker::noop());
    assert!(messages.poll_next(context).is_pending());
    assert!(messages.poll_next(context).is_pending());
    assert_eq!(messages.missing(), Some(7));
}
