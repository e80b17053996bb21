/** Names that are devices on Windows, whatever their extension. */
const devices = /^(?:con|conin\$|conout\$|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(?:\.|$)/i
/** Separators, what changes a terminal or the order of what is read, halves of characters, and what Windows does not allow. */
const unsafe = /[\p{Cc}\p{Surrogate}\u200e\u200f\u2028-\u202e\u2066-\u2069<>:"|?*]/gu
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
