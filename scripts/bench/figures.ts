import type { ContestantName } from './contestants.ts'
import type { Target } from './rows.ts'

/** What one server reached in one row: a figure per round, or why there is none. */
export type Outcome = { readonly rounds: readonly number[] } | { readonly failed: string }

export type Line = {
  readonly title: string
  readonly unit: string
  readonly target?: Target | { readonly below: number }
  readonly outcomes: Readonly<Partial<Record<ContestantName, Outcome>>>
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

export function figure(line: Line, name: ContestantName): number | undefined {
  const outcome = line.outcomes[name]
  return outcome && 'rounds' in outcome ? median(outcome.rounds) : undefined
}

/** Whether a line's target is met; undefined when it has none, or a figure it needs is missing. */
export function met(line: Line): boolean | undefined {
  const ours = figure(line, 'packs')
  if (line.target === undefined || ours === undefined) return undefined
  if ('below' in line.target) return ours < line.target.below
  const theirs = figure(line, line.target.of)
  return theirs === undefined ? undefined : ours >= theirs * line.target.atLeast
}

/** The one table: a figure per server (the median of its rounds), then ours divided by each peer's. */
export function table(lines: readonly Line[], names: readonly ContestantName[]): string {
  const peers = names.includes('packs') ? names.filter((name) => name !== 'packs') : []
  const head = ['', 'unit', ...names, ...peers.map((peer) => `÷ ${peer}`), 'target']
  const body = lines.map((line) => [
    line.title,
    line.unit,
    ...names.map((name) => cell(line, name)),
    ...peers.map((peer) => ratio(line, peer)),
    targetCell(line),
  ])
  const all = [head, ...body]
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)))
  const textual = (column: number) => column < 2 || column === head.length - 1
  const print = (row: string[]) =>
    row
      .map((text, at) => (textual(at) ? text.padEnd(widths[at] ?? 0) : text.padStart(widths[at] ?? 0)))
      .join('  ')
      .trimEnd()
  return [print(head), widths.map((width) => '-'.repeat(width)).join('  '), ...body.map(print)].join('\n')
}

function cell(line: Line, name: ContestantName): string {
  const value = figure(line, name)
  if (value !== undefined) return format(value)
  return line.outcomes[name] ? 'failed' : '–'
}

function ratio(line: Line, peer: ContestantName): string {
  const ours = figure(line, 'packs')
  const theirs = figure(line, peer)
  return ours === undefined || theirs === undefined ? '–' : (ours / theirs).toFixed(2)
}

function targetCell(line: Line): string {
  if (line.target === undefined) return ''
  const { target } = line
  const text = 'below' in target ? `< ${target.below} ${line.unit}` : `≥ ${target.atLeast} × ${target.of}`
  const verdict = met(line)
  return verdict === undefined ? text : `${text}: ${verdict ? 'met' : 'MISSED'}`
}

function format(value: number): string {
  return value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString('en-US')
}

/** The failures behind the table's cells, in words. */
export function failuresOf(lines: readonly Line[]): string[] {
  return lines.flatMap((line) =>
    Object.entries(line.outcomes).flatMap(([name, outcome]) =>
      outcome && 'failed' in outcome ? [`${line.title}, ${name}: ${outcome.failed}`] : [],
    ),
  )
}
