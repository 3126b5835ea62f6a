//! Odd requests, listed and generated; the same on every machine.

/// Heads and bodies that parsers have quarrelled about, and mutations of good ones. Behind each
/// stands a second request, so that a different idea of where it ends shows.
pub fn cases() -> Vec<Vec<u8>> {
    let mut cases: Vec<Vec<u8>> = Vec::new();
    for target in TARGETS {
        cases.push(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes());
    }
    for fields in FIELDS {
        cases.push(format!("POST /f HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\nhello").into_bytes());
    }
    for body in BODIES {
        let head = "POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        cases.push(format!("{head}{body}").into_bytes());
    }
    cases.extend(HEADS.iter().map(|head| head.to_vec()));
    for case in &mut cases {
        case.extend_from_slice(b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    cases.extend(mutations());
    cases
}

/// Good requests with one odd byte put in, put over another, or one byte taken out.
fn mutations() -> Vec<Vec<u8>> {
    const GOOD: &[&str] = &[
        "GET /m?a=b HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /m HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /m HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /m HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\nT: u\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    const ODD: &[u8] = b"\0\t\n\r ,;:\"\x0b\x0c\x7f\x80\xa0\xff+-0x1_/?#@[(={";
    // A fixed sequence (Knuth's MMIX): the same cases on every machine.
    let mut state = 20_240_229u64;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut cases = Vec::new();
    for round in 0..400 {
        let mut case = GOOD[round % GOOD.len()].as_bytes().to_vec();
        // The first method stays what it is: readers know different ones.
        let at = 4 + draw(case.len() - 4);
        let odd = ODD[draw(ODD.len())];
        match draw(4) {
            0 => drop(case.remove(at)),
            1 => case[at] = odd,
            _ => case.insert(at, odd),
        }
        cases.push(case);
    }
    cases
}

const TARGETS: &[&str] = &[
    "/",
    "//",
    "//x/y",
    "/a//b/../c",
    "/%00",
    "/a%0d%0ab",
    "/?",
    "/??",
    "/?a#b",
    "/a#b",
    "*",
    "a",
    "?a",
    "/a|b",
    "/a^b`c",
    "/a\"b<c>",
    "/{a}",
    "/a\\b",
    "/a[b]",
    "http://h/x",
    "http://h",
    "HTTP://H/x?y",
    "http://u:p@h:1//x",
    "http:///x",
    "http://h?x",
    "ftp://h/x",
    "h:443",
    "/\u{e9}",
    "/a\tb",
    "/a b",
    "https://[::1]:1/x",
    "/\u{7f}",
];

const FIELDS: &[&str] = &[
    "Content-Length: 5",
    "content-length:5",
    "CONTENT-LENGTH: \t 5 \t",
    "Content-Length:\t5",
    "Content-Length: 5\t",
    "Content-Length: 5 ",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked\t",
    "Transfer-Encoding: chunked ",
    "Host:\t5\r\nContent-Length: 5",
    "Connection: \tkeep-alive\t\r\nContent-Length: 5",
    "Content-Length: 05",
    "Content-Length: 0000000000000000005",
    "Content-Length: 00000000000000000000005",
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: 5, 5",
    "Content-Length: 5,5",
    "Content-Length: 5 5",
    "Content-Length: 0x5",
    "Content-Length: 5.",
    "Content-Length: 5;",
    "Content-Length: 5\u{b}",
    "Content-Length: \u{b}5",
    "Content-Length:",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\ncontent-length: 4",
    "Content-Length : 5",
    "Content-Length\t: 5",
    " Content-Length: 5",
    "Content-Length: 5\r\n 5",
    "Content-Length: 5\r\n\t",
    "Content_Length: 5\r\nContent-Length: 5",
    "Content-Length: 9223372036854775808",
    "Content-Length: 18446744073709551621",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Content-Length: 5\r\nTransfer-Encoding: identity",
    "Content-Length: 5\r\nTransfer-Encoding:",
    "Content-Length: 5\r\nTransfer_Encoding: chunked",
    "Content-Length: 5\r\nTransfer-Encoding : chunked",
    "Content-Length: 5\r\nTransfer-Encodin: chunked",
    "Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked",
    "Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked\u{c}",
    "Transfer-Encoding:\r\n chunked",
    "X: y\r\nContent-Length: 5\r\nHost: y",
    "Content-Length: 5\r\nA B: c",
    "Content-Length: 5\r\nA",
    "Content-Length: 5\r\n: b",
    "Content-Length: 5\r\nA\0: b",
    "Content-Length: 5\r\nA: \0",
    "Content-Length: 5\r\nA: \u{1}",
    "Content-Length: 5\r\nA: \u{7f}",
    "Content-Length: 5\r\nA: \u{e9}\u{a0}",
    "Content-Length: 5\r\nA:",
    "Content-Length: 5\r\nA: ",
    "Content-Length: 5\r\nA: ,,;;\"\"''{}",
    "Content-Length: 5\r\nA!#$%&'*+-.^_`|~9: b",
    "Content-Length: 5\r\nConnection: keep-alive",
    "Content-Length: 5\r\nConnection: x, y",
    "Content-Length: 5\r\nConnection:",
    "Content-Length: 5\r\nKeep-Alive: x\r\nTE: trailers\r\nTrailer: x",
    "Content-Length: 5\r\nUpgrade: h2c",
    "Content-Length: 5\r\nExpect: 100-continue",
    "Content-Length: 5\r\nExpect: x",
    "Content-Length: 5\r\nCookie: a=b\r\nCookie: c=d",
];

const BODIES: &[&str] = &[
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n000\r\n\r\n",
    "05\r\nhello\r\n0\r\n\r\n",
    "0000000000000005\r\nhello\r\n0\r\n\r\n",
    "00000000000000005\r\nhello\r\n0\r\n\r\n",
    "a\r\n0123456789\r\n0\r\n\r\n",
    "A\r\n0123456789\r\n0\r\n\r\n",
    "5;a\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\\\"\"\r\nhello\r\n0\r\n\r\n",
    "5;a;b;c=d\r\nhello\r\n0;e\r\n\r\n",
    "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
    "5;\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    "5 ;a\r\nhello\r\n0\r\n\r\n",
    "5; a\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5_\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\rhello\r0\r\r",
    "5\r\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    "5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n",
    "5\r\nhello\r\n0\r\nA : b\r\n\r\n",
    "5\r\nhello\r\n0\r\nA: b\n\r\n",
    "5\r\nhello\r\n0\r\nA\r\n\r\n",
    "5\r\nhello\r\n0\r\n A: b\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 30\r\n\r\n",
    "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n0\r\nTrailer: x\r\nTE: x\r\nConnection: close\r\n\r\n",
    "5\r\nhello\r\n0\r\nHost: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
    "",
];

const HEADS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"GET / HTTP/1.1\r\nHost: x\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a;b=c\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n X: y\r\n\r\n",
    b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
    b"GET / http/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1x\r\nHost: x\r\n\r\n",
    b"GET / HTTP/11\r\nHost: x\r\n\r\n",
    b"GET / RTSP/1.0\r\nHost: x\r\n\r\n",
    b"GET / ICE/1.0\r\nHost: x\r\n\r\n",
    b"GET /\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GE\0T / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
];
