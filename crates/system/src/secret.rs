//! Buffers of secrets. The memory is overwritten when a buffer grows and when it is dropped.

use std::ops::Deref;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes per read.
const PART: usize = 8 * 1024;

/// Bytes that may hold a secret and whose number is not known in advance.
///
/// A `Vec` that grows moves to a new allocation and leaves a copy of its content in the old one. This buffer overwrites
/// the old allocation before it is freed. It is overwritten when it is dropped.
pub struct SecretBuffer(Zeroizing<Vec<u8>>);

impl Default for SecretBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl SecretBuffer {
    /// An empty buffer that has not allocated memory.
    pub fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty buffer with room for so many bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends bytes. A buffer that has to grow overwrites its old allocation.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            drop(self.grow(bytes.len()));
        }
        self.0.extend_from_slice(bytes);
    }

    /// Appends everything that a stream still holds, and gives the number of bytes.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        let mut part = Zeroizing::new([0; PART]);
        let before = self.0.len();
        loop {
            match stream.read(&mut *part).await? {
                0 => return Ok(self.0.len() - before),
                read => self.extend(part.get(..read).unwrap_or_default()),
            }
        }
    }

    /// As [`SecretBuffer::read`], for a file.
    pub fn read_blocking(&mut self, stream: &mut impl std::io::Read) -> std::io::Result<usize> {
        let mut part = Zeroizing::new([0; PART]);
        let before = self.0.len();
        loop {
            match stream.read(&mut *part) {
                Ok(0) => return Ok(self.0.len() - before),
                Ok(read) => self.extend(part.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// Moves to a place with room for so many more bytes, and gives the old place, overwritten.
    fn grow(&mut self, more: usize) -> Vec<u8> {
        let needed = self.0.len().saturating_add(more);
        let mut larger = Vec::with_capacity(needed.max(self.0.capacity().saturating_mul(2)));
        larger.extend_from_slice(&self.0);
        let mut old = std::mem::replace(&mut *self.0, larger);
        old.as_mut_slice().zeroize();
        old
    }
}

impl Deref for SecretBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_that_is_left_holds_nothing() {
        let mut buffer = SecretBuffer::with_capacity(6);
        buffer.extend(b"secret");
        let left = buffer.grow(1);
        assert_eq!((left.as_slice(), &*buffer), ([0; 6].as_slice(), b"secret".as_slice()));
    }

    /// A `Vec` that moved by itself would have left its content behind: the buffer moves only where it overwrites.
    #[test]
    fn it_moves_only_when_it_overwrites() {
        for sizes in [vec![1; 5000], vec![7, 0, 8192, 1, 40_000, 3], vec![0, 0, 1]] {
            let mut buffer = SecretBuffer::new();
            let mut expected = Vec::new();
            for (index, size) in sizes.into_iter().enumerate() {
                let bytes = vec![u8::try_from(index % 251).unwrap() + 1; size];
                if buffer.0.capacity() - buffer.len() < size {
                    let length = buffer.len();
                    let left = buffer.grow(size);
                    assert_eq!(left, vec![0; length]);
                }
                let place = buffer.as_ptr();
                buffer.extend(&bytes);
                assert_eq!(buffer.as_ptr(), place, "it moved while it had room");
                expected.extend_from_slice(&bytes);
            }
            assert_eq!(&*buffer, expected);
        }
    }

    #[tokio::test]
    async fn streams_and_files_are_read_whole() {
        let content = (0..100_000u32).map(|number| number.to_le_bytes()[0]).collect::<Vec<_>>();
        let (mut buffer, mut blocking) = (SecretBuffer::new(), SecretBuffer::new());
        buffer.extend(b"before");
        assert_eq!(buffer.read(&mut content.as_slice()).await.unwrap(), content.len());
        assert_eq!(blocking.read_blocking(&mut content.as_slice()).unwrap(), content.len());
        assert_eq!((buffer.get(6..), &*blocking), (Some(content.as_slice()), content.as_slice()));
    }
}
