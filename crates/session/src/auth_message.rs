//! Messages that a client sends while it authenticates. They contain secrets and are overwritten on
//! drop.

use bytes::BytesMut;
use pgentra_wire::WireError;
use pgentra_wire::frame::Header;
use pgentra_wire::frontend::{AuthenticationAnswer, SaslInitialResponse};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::Zeroize;

use super::login_error::LoginError;

/// One message with the type byte `p`. Its bytes are overwritten on drop.
pub struct AuthMessage(AuthenticationAnswer);

impl AuthMessage {
    /// Reads exactly one message, so that no part of it stays in another buffer of the process. Not
    /// cancel-safe: if it is dropped midway, the bytes read so far are lost (and overwritten).
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, LoginError> {
        let mut received = Overwritten(BytesMut::with_capacity(Header::SIZE));
        loop {
            if let Some(answer) = AuthenticationAnswer::decode(&mut received.0)? {
                return Ok(Self(answer));
            }
            // The decoder has already checked the length against its limit.
            let whole = Header::peek(&received.0)?.map_or(Header::SIZE, |header| Header::SIZE + header.body);
            // Only the header moves when the buffer grows to its final size, so no part of a secret
            // is left behind.
            received.0.reserve(whole - received.0.len());
            fill(stream, &mut received.0, whole).await?;
        }
    }

    /// The message as a password.
    pub fn password(&self) -> Result<&[u8], WireError> {
        self.0.password()
    }

    /// The message as the first one of a SASL exchange.
    pub fn sasl_initial(&self) -> Result<SaslInitialResponse<'_>, WireError> {
        self.0.sasl_initial()
    }

    /// The body as received, for a caller that decodes it itself.
    pub fn body(&self) -> &[u8] {
        self.0.sasl_response()
    }
}

impl Drop for AuthMessage {
    fn drop(&mut self) {
        self.0.body_mut().zeroize();
    }
}

/// Reads until the buffer holds `length` bytes and not one more.
pub async fn fill(
    stream: &mut (impl AsyncRead + Unpin),
    buf: &mut BytesMut,
    length: usize,
) -> std::io::Result<()> {
    while buf.len() < length {
        let missing = (length - buf.len()) as u64;
        if (&mut *stream).take(missing).read_buf(buf).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// A buffer that is overwritten on drop.
pub struct Overwritten(pub BytesMut);

impl Drop for Overwritten {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exactly_one_message_is_read() {
        let mut stream = &b"p\0\0\0\x0bsecret\0Q\0\0\0\x04"[..];
        let answer = AuthMessage::read(&mut stream).await.ok().unwrap();
        assert_eq!(answer.password(), Ok(&b"secret"[..]));
        assert_eq!(stream, b"Q\0\0\0\x04");
    }

    #[tokio::test]
    async fn a_long_token_comes_in_pieces() {
        let mut message = BytesMut::new();
        let token = vec![b'x'; pgentra_wire::limits::PASSWORD];
        pgentra_wire::frontend::encode_password(&token, &mut message).unwrap();
        let (mut near, far) = tokio::io::duplex(1000);
        let send = tokio::spawn(async move {
            let mut far = far;
            tokio::io::AsyncWriteExt::write_all(&mut far, &message).await.unwrap();
        });
        let answer = AuthMessage::read(&mut near).await.ok().unwrap();
        assert_eq!(answer.password(), Ok(&token[..]));
        send.await.unwrap();
    }

    #[tokio::test]
    async fn too_long_or_cut_off_is_an_end() {
        assert!(matches!(AuthMessage::read(&mut &b"p\0\x01\0\0"[..]).await, Err(LoginError::Rejected(_))));
        assert!(matches!(AuthMessage::read(&mut &b"Q\0\0\0\x04"[..]).await, Err(LoginError::Rejected(_))));
        assert!(matches!(
            AuthMessage::read(&mut &b"p\0\0\0\x09sec"[..]).await,
            Err(LoginError::Disconnected(_))
        ));
    }
}
