import { relative, resolve } from 'node:path'
import type { WriteStream } from 'node:tty'

/**
 * Where a command says things: results go to stdout, as text or as one JSON document; what happens on the way goes to
 * stderr, unless it is to be quiet.
 */
export type Output = {
  readonly json: boolean
  readonly quiet: boolean
  /** Whether bars and colours are for a person who watches. */
  readonly live: boolean
  /** The result. `text` is asked for only where JSON is not. */
  result(value: unknown, text: () => string): void
  /** A line about what happens. */
  note(line: string): void
  bold(text: string): string
}

export function openOutput(env: NodeJS.ProcessEnv, { json = false, quiet = false } = {}): Output {
  const colour = (stream: NodeJS.WriteStream | WriteStream) => stream.isTTY && !env.NO_COLOR && env.TERM !== 'dumb'
  return {
    json,
    quiet,
    live: process.stderr.isTTY && !quiet && env.TERM !== 'dumb',
    result(value, text) {
      const shown = json ? escaped(JSON.stringify(value, undefined, 2)) : readable(text().replace(/\n+$/, ''))
      if (shown) process.stdout.write(`${shown}\n`)
    },
    note(line) {
      if (!quiet) process.stderr.write(`${printable(line)}\n`)
    },
    bold: (text) => (colour(process.stdout) ? `${boldOn}${text}${boldOff}` : text),
  }
}

const [boldOn, boldOff] = ['\u001b[1m', '\u001b[22m']
/** What changes a terminal or the order of what is read on it. */
const unprintable = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu

/** Text by others, made harmless to a terminal: control characters but line feeds and tabs are left out. */
export function printable(text: string): string {
  return text.replace(unprintable, (c) => (c === '\n' || c === '\t' ? c : ''))
}

/** The same of a result, which may be bold in places. */
function readable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  const parts = text.split(/(\u001b\[(?:1|22)m)/)
  return parts.map((part) => (part === boldOn || part === boldOff ? part : printable(part))).join('')
}

/** JSON says the same with an escape, and JSON.stringify escapes the first 32 control characters only. */
function escaped(document: string): string {
  return document.replace(unprintable, (c) => (c === '\n' ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`))
}

/** Rows under a head, in aligned columns. Empty where there are no rows. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return ''
  return aligned([head, ...rows])
}

/** Rows in aligned columns; the last is as wide as it is. */
export function aligned(rows: readonly (readonly string[])[]): string {
  const clean = rows.map((row) => row.map((cell) => printable(cell).replace(/\s+/g, ' ')))
  const widths: number[] = []
  for (const row of clean)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, widthOf(cell))
    })
  const line = (row: string[]) => row.map((cell, i) => cell + ' '.repeat((widths[i] ?? 0) - widthOf(cell))).join('  ')
  return clean.map((row) => `${line(row).trimEnd()}\n`).join('')
}

/** Columns that a text takes on a terminal, near enough: wide letters take two, marks none. */
function widthOf(text: string): number {
  let width = 0
  for (const letter of text) {
    if (/\p{M}/u.test(letter)) continue
    width +=
      /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\p{Emoji_Presentation}]/u.test(
        letter,
      )
        ? 2
        : 1
  }
  return width
}

/** A path as a person would write it here: below this folder from here, else in full. */
export function pathText(path: string): string {
  const short = relative('.', path) || '.'
  return short.startsWith('..') ? resolve(path) : short
}

/** Bytes for people: `45.6 KB`. Powers of a thousand, as disks and networks are sold. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}
