//! JSON-RPC with the framing of the Language Server Protocol: a header with the length, then the
//! message.
//!
//! ```text
//! cargo run --example json_rpc -- serve                      # in a first terminal
//! cargo run --example json_rpc -- add '[1, 2]'               # in a second one
//! ```
//!
//! The endpoint is `json-rpc`, or what SOCKPIPE_ENDPOINT says.

use std::io::{self, ErrorKind};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sockpipe::{Listener, Stream, serve, shutdown_signal};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};

const LONGEST_HEADER: u64 = 4096;
const LONGEST_MESSAGE: u64 = 1 << 20;

/// The next message; `None` when the peer has ended its side after the last one.
async fn read_message(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let invalid = |what: &str| Err(io::Error::new(ErrorKind::InvalidData, what));
    let mut header = (&mut *from).take(LONGEST_HEADER);
    let (mut line, mut length, mut first) = (Vec::new(), None, true);
    loop {
        line.clear();
        header.read_until(b'\n', &mut line).await?;
        if line.is_empty() && first {
            return Ok(None);
        }
        first = false;
        let Some(field) = line.strip_suffix(b"\r\n") else {
            return match header.limit() {
                0 => invalid("the header is too long"),
                _ if line.ends_with(b"\n") => invalid("a line of the header does not end in CR LF"),
                _ => Err(ErrorKind::UnexpectedEof.into()),
            };
        };
        if field.is_empty() {
            break;
        }
        let field = String::from_utf8_lossy(field);
        match field.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse::<u64>().ok();
            }
            Some(_) => {}
            None => return invalid("a line of the header is not NAME: VALUE"),
        }
    }
    let Some(length) = length else { return invalid("the header has no Content-Length") };
    if length > LONGEST_MESSAGE {
        return invalid("the message is too long");
    }
    // Memory is taken for what comes, not for what is announced.
    let mut message = Vec::new();
    from.take(length).read_to_end(&mut message).await?;
    if (message.len() as u64) < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &Value) -> io::Result<()> {
    let message = message.to_string();
    let whole = format!("Content-Length: {}\r\n\r\n{message}", message.len());
    to.write_all(whole.as_bytes()).await
}

/// `None` for a notification, which wants no answer.
fn answer(message: &[u8]) -> Option<Value> {
    let failed = |id: &Value, code: i32, message: &str| {
        Some(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
    };
    let Ok(request) = serde_json::from_slice::<Value>(message) else {
        return failed(&Value::Null, -32700, "this is not JSON");
    };
    let Some(method) = request["method"].as_str() else {
        return failed(&Value::Null, -32600, "this is not a request");
    };
    let id = request.get("id")?;
    let result = match method {
        "add" => {
            let numbers = request["params"].as_array().map_or(&[][..], Vec::as_slice);
            match numbers.iter().map(Value::as_f64).sum::<Option<f64>>() {
                Some(sum) => json!(sum),
                None => return failed(id, -32602, "these are not numbers"),
            }
        }
        _ => return failed(id, -32601, "there is no such method"),
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

async fn handle(stream: Stream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(message) = read_message(&mut stream).await? {
        if let Some(answer) = answer(&message) {
            write_message(&mut stream, &answer).await?;
        }
    }
    stream.shutdown().await
}

#[tokio::main]
async fn main() -> Result<()> {
    let endpoint = std::env::var("SOCKPIPE_ENDPOINT");
    let endpoint = endpoint.unwrap_or_else(|_| "json-rpc".to_owned());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (method, parameters) = match &arguments[..] {
        [serve_it] if serve_it == "serve" => {
            let listener = Listener::bind(&endpoint)?;
            let stop = shutdown_signal();
            println!("listening on {}", listener.endpoint());
            serve(listener, handle)
                // One connection's end is no other's.
                .on_error(|error| eprintln!("a connection ended, {:?}: {error}", error.kind()))
                .with_graceful_shutdown(stop)
                .await?;
            return Ok(());
        }
        [method, parameters] => (method, serde_json::from_str::<Value>(parameters)?),
        _ => bail!("usage: json_rpc serve | json_rpc METHOD PARAMETERS"),
    };
    let mut stream = BufReader::new(Stream::connect(&endpoint).await?);
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
    write_message(&mut stream, &request).await?;
    let answer = read_message(&mut stream).await?.context("the server gave no answer")?;
    let answer: Value = serde_json::from_slice(&answer)?;
    match answer.get("result") {
        Some(result) => println!("{result}"),
        None => bail!("{method}: {}", answer["error"]),
    }
    Ok(())
}
