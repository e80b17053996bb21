const [quote, backslash, brace, bracket, comma] = [0x22, 0x5c, 0x7b, 0x5b, 0x2c]

/**
 * Whether a text of JSON has more parts than this: its objects, its lists, and what they have beside a first entry. Each
 * part takes two bytes to send and a hundred to keep, so that is to be asked before the text is parsed.
 */
export function hasMoreParts(bytes: Uint8Array, most: number): boolean {
  let parts = 0
  let inText = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]
    if (byte === quote) inText = !inText
    else if (inText) {
      if (byte === backslash) at += 1
    } else if ((byte === comma || byte === brace || byte === bracket) && ++parts > most) return true
  }
  return false
}
