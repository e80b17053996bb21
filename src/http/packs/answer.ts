/** `exact`: asked for by its version, whose content never changes. What a channel or a range names may. */
export function cacheControl(exact: boolean): string {
  return exact ? 'private, max-age=31536000, immutable' : 'private, no-cache'
}
