/** Names that are devices on Windows, whatever their extension. */
const devices = /^(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\.|$)/i
/** Separators, control characters, halves of characters, and what Windows does not allow in a name. */
const unsafe = /[\p{Cc}\p{Surrogate}<>:"|?*]/gu
/** Most file systems take 255 bytes; some room is left for the names of temporary files. */
const mostBytes = 200

/**
 * A file name for content, from the title its author gave: the last part of a path, and nothing that leads out of the
 * folder, hides the file, or is no name on some system.
 */
export function fileNameOf({ packId, version, title }: { packId: string; version: string; title?: string }): string {
  return safe(title ?? '') || safe(`${packId}-${version}.tgz`)
}

function safe(title: string): string {
  const last = title.split(/[\\/]/).at(-1) ?? ''
  const name = shortened(last.replace(unsafe, '_').replace(/^[.\s]+/, '')).replace(/[.\s]+$/, '')
  return devices.test(name) ? `_${name}` : name
}

/** Cut in front of its extension, between characters. */
function shortened(name: string): string {
  if (Buffer.byteLength(name) <= mostBytes) return name
  const extension = /(?:\.[a-z0-9]{1,8}){1,2}$/i.exec(name)?.[0] ?? ''
  let stem = ''
  for (const character of name.slice(0, name.length - extension.length)) {
    if (Buffer.byteLength(stem + character + extension) > mostBytes) break
    stem += character
  }
  return stem + extension
}
