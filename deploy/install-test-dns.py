"""A name server on 127.0.0.1:53 that knows one name, in-dns.example, at 127.0.0.9."""

import socket

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    question, client = server.recvfrom(512)
    end = 12
    while question[end]:
        end += question[end] + 1
    known = question[12:end] == b"\x06in-dns\x07example"
    address = known and question[end + 1 : end + 3] == b"\0\1"
    # An answer without an error but without an address, where another kind is asked for; or "no such name".
    flags = b"\x81\x80" if known else b"\x81\x83"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\x09" if address else b""
    count = b"\0\1" if address else b"\0\0"
    server.sendto(question[:2] + flags + b"\0\1" + count + b"\0\0\0\0" + question[12 : end + 5] + answer, client)
