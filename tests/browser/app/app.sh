#!/bin/sh
# Serves one connection of an app on standard input and output: `/socket` echoes texts over a WebSocket, `/echo` returns the
# request, and all other paths return a page.

# Prints a number of bytes of the input as decimal numbers.
bytes() {
  dd bs=1 count="$1" 2> /dev/null | od -An -v -tu1
}

# Switches to a WebSocket (RFC 6455) with the client's key, and echoes short texts until another frame arrives.
echo_texts() {
  digest=$(printf %s "${1}258EAFA5-E914-47DA-95CA-C5AB0DC85B11" | sha1sum | cut -c 1-40)
  accept=$(printf %s "$digest" | xxd -r -p | base64)
  printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n' "$accept"
  while :; do
    # The head of a text of less than 126 bytes, and the mask.
    # shellcheck disable=SC2046 # a word for each byte
    set -- $(bytes 6)
    if [ "$#" != 6 ] || [ "$1" != 129 ]; then
      return
    fi
    length=$(($2 & 127))
    shift 2
    text=''
    for byte in $(bytes "$length"); do
      text=$text$(printf '\\%03o' $((byte ^ $1)))
      # The mask repeats after four bytes.
      set -- "$2" "$3" "$4" "$1"
    done
    # shellcheck disable=SC2059 # the text consists of escapes
    text="web: $(printf "$text")"
    printf "\\201\\$(printf %03o "${#text}")%s" "$text"
  done
}

# Responds with a body of a type.
respond() {
  printf 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %s\r\n\r\n%s' "$1" "$2"
}

# Without a request, the daemon looks whether the app accepts connections.
read -r method target _ || exit 0
end=$(printf '\r')
heads='' length=0 key=''
while IFS= read -r line && [ "$line" != "$end" ]; do
  line=${line%"$end"}
  heads="$heads$line
"
  value=${line#*: }
  case $(printf %s "${line%%:*}" | tr '[:upper:]' '[:lower:]') in
    content-length) length=$value ;;
    sec-websocket-key) key=$value ;;
  esac
done
case "$target" in
  /socket) echo_texts "$key" ;;
  /echo*)
    sent=$(head -c "$length" | wc -c)
    respond text/plain "$method $target
${heads}body=$sent"
    ;;
  *) respond text/html '<!doctype html><title>An app</title><h1>The app</h1>' ;;
esac
