//! A carrier's side of the wire without our protocol: bytes out, bytes in, and a reader of any protobuf message. INVARIANT: it
//! knows no schema, so a field that a reply should not have cannot hide from it.

use http::uri::PathAndQuery;
use prost::bytes::{Buf, BufMut};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::orders::Address;
use crate::cli::Failure;

/// What came back from a call.
#[derive(PartialEq, Eq)]
pub enum Answer {
    /// The message's bytes.
    Message(Vec<u8>),
    /// Everything that the refusal said: code, text, details and headers.
    Refusal(Code, Vec<u8>),
}

/// Asks for one parcel.
pub async fn get_delivery(channel: Channel, serial: &str) -> Result<Answer, Failure> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|_| Failure::unreachable("the demonstration's own vault does not answer"))?;
    let path = PathAndQuery::from_static("/strongroom.v1.DeliveryService/GetDelivery");
    match client.unary(Request::new(text_field(1, serial)), path, Bytes).await {
        Ok(reply) => Ok(Answer::Message(reply.into_inner())),
        Err(status) => match status.code() {
            Code::Unavailable | Code::Internal | Code::Unknown => Err(status.into()),
            code => Ok(Answer::Refusal(code, all_of(&status))),
        },
    }
}

/// The refusal in bytes; only the date may differ from one to the next.
fn all_of(status: &Status) -> Vec<u8> {
    let headers = status.metadata().clone().into_headers();
    let mut headers: Vec<_> = headers.iter().filter(|(name, _)| *name != "date").collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    let headers = headers.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
    [status.message().as_bytes(), status.details()]
        .into_iter()
        .chain(headers)
        .flat_map(|part| [part, b"\n"].concat())
        .collect()
}

/// Whether the reply is exactly this: field 1 an address with exactly these parts, field 2 this serial, and nothing else.
pub fn is_exactly(reply: &[u8], address: &Address, serial: &str) -> bool {
    let found = fields(reply).unwrap_or_default();
    let [(1, Payload::Bytes(inside)), (2, Payload::Bytes(number))] = found.as_slice() else { return false };
    let lines = address.lines.iter().map(|line| (1, line));
    let parts = [(2, &address.locality), (3, &address.region), (4, &address.postal_code), (5, &address.country)];
    // proto3 leaves out what is empty.
    let parts = parts.into_iter().filter(|(_, part)| !part.is_empty());
    let expected: Vec<_> = lines.chain(parts).map(|(number, part)| (number, Payload::Bytes(part.as_bytes()))).collect();
    *number == serial.as_bytes() && fields(inside).is_some_and(|found| found == expected)
}

/// A field's content as the wire tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    Number(u64),
    Fixed64(&'a [u8]),
    Bytes(&'a [u8]),
    Fixed32(&'a [u8]),
}

/// All fields of a message in their order; `None` when the bytes are no message to their very end.
pub fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Payload<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let payload = match tag & 7 {
            0 => Payload::Number(varint(&mut bytes)?),
            1 => Payload::Fixed64(cut(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                Payload::Bytes(cut(&mut bytes, length)?)
            }
            5 => Payload::Fixed32(cut(&mut bytes, 4)?),
            _ => return None,
        };
        found.push((tag >> 3, payload));
    }
    Some(found)
}

fn cut<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = tail;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// One text field of fewer than 128 bytes.
fn text_field(number: u8, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(0);
    [&[number << 3 | 2, length], text.as_bytes()].concat()
}

/// Passes messages through as they are.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::GetDeliveryResponse;
    use prost::Message as _;

    fn address() -> Address {
        let text = r#"{"lines": ["1 Ring Road", "Flat 2"], "locality": "", "region": "R", "country": "GB"}"#;
        serde_json::from_str(text).unwrap()
    }

    fn reply() -> GetDeliveryResponse {
        let serial = "SW123456789".to_owned();
        GetDeliveryResponse { address: Some(address().on_the_wire()), serial, phone: String::new() }
    }

    fn fits(bytes: &[u8]) -> bool {
        is_exactly(bytes, &address(), "SW123456789")
    }

    #[test]
    fn a_reply_is_exactly_address_and_serial() {
        assert!(fits(&reply().encode_to_vec()));
        let mut other = reply();
        other.address.as_mut().unwrap().lines.pop();
        assert!(!fits(&other.encode_to_vec()));
        assert!(!fits(&GetDeliveryResponse { serial: "SW123456780".to_owned(), ..reply() }.encode_to_vec()));
    }

    #[test]
    fn a_field_too_many_is_found_wherever_it_stands() {
        let whole = reply().encode_to_vec();
        assert!(!fits(&[&whole[..], &text_field(3, "+49")].concat()));
        assert!(!fits(&[&text_field(4, "+49")[..], &whole].concat()));
        assert!(!fits(&[&whole[..], &[0x18, 1]].concat()));
        let mut inside = address().on_the_wire().encode_to_vec();
        inside.extend(text_field(6, "N"));
        let inside = [&[0x0a, inside.len() as u8][..], &inside, &text_field(2, "SW123456789")].concat();
        assert!(!fits(&inside));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bad in [&[0x0a][..], &[0x0a, 5, 1], &[0x0b], &[0x80; 11], &[0x09, 1, 2]] {
            assert_eq!(fields(bad), None);
        }
        assert_eq!(fields(&[0x08, 0x96, 0x01]), Some(vec![(1, Payload::Number(150))]));
    }
}
