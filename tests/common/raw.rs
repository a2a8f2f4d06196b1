//! gRPC without generated types: bytes out, bytes in, and messages filled by their descriptors.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a harness that cannot speak has failed its test")]

use prost::bytes::{Buf, BufMut};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Sends one message to an RPC of any kind and answers every message of its reply.
pub async fn call(channel: Channel, path: &str, request: Request<Vec<u8>>) -> Result<Vec<Vec<u8>>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let request = request.map(tokio_stream::once);
    let mut reply = client.streaming(request, path.parse().unwrap(), Bytes).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = reply.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

/// A message with every field set, every text made by `text`.
pub fn filled(message: &MessageDescriptor, text: &mut dyn FnMut() -> String) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let one = match field.kind() {
            Kind::String => Value::String(text()),
            Kind::Bytes => Value::Bytes(text().into_bytes().into()),
            Kind::Message(message) => Value::Message(self::filled(&message, text)),
            Kind::Bool => Value::Bool(true),
            Kind::Enum(_) => Value::EnumNumber(1),
            Kind::Uint32 => Value::U32(1_000_007),
            Kind::Uint64 => Value::U64(1_000_007),
            Kind::Int32 => Value::I32(1_000_007),
            Kind::Int64 => Value::I64(1_000_007),
            other => panic!("{other:?} is new to the protocol"),
        };
        filled.set_field(&field, if field.is_list() { Value::List(vec![one]) } else { one });
    }
    filled
}

/// Messages as they lie on the wire.
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
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
