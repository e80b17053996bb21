/** One line of a table of targets. */
export type Verdict = {
  readonly title: string
  readonly figure: string
  readonly target: string
  readonly met: boolean
}

export function printVerdicts(lines: readonly Verdict[]): void {
  const widest = (texts: readonly string[]) => Math.max(...texts.map((text) => text.length))
  const titles = widest(lines.map(({ title }) => title))
  const targets = widest(lines.map(({ target }) => target))
  for (const { title, figure, target, met } of lines)
    console.log(`${title.padEnd(titles)}  ${target.padEnd(targets)}  ${met ? 'met   ' : 'MISSED'}  ${figure}`)
}
