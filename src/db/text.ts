/** A text that others wrote, as PostgreSQL takes it: it has no way to store NUL, nor in JSON half a surrogate pair. */
export function storable(text: string): string {
  return text.replace(/\0|\p{Surrogate}/gu, '\ufffd')
}
