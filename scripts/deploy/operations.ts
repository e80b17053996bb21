import { settings } from '../../src/config.ts'
import { figures } from './figures.ts'

/** The parts of spec/operations.md that are made of the code, by the name in their markers. */
const parts: Record<string, () => string> = {
  settings: () =>
    table(
      ['setting', 'default', 'what it is'],
      Object.entries(settings).map(([name, setting]) => [
        `\`${name}\``,
        'fallback' in setting ? `\`${setting.fallback}\`` : 'unset',
        setting.help,
      ]),
    ),
  figures: () =>
    table(
      ['figure', 'labels', 'what it is'],
      figures()
        .toSorted((a, b) => Number(isOurs(b)) - Number(isOurs(a)) || (a.name < b.name ? -1 : 1))
        .map(({ name, help, labels }) => [`\`${name}\``, labels.map((label) => `\`${label}\``).join(', '), help]),
    ),
}

const isOurs = ({ name }: { name: string }) => name.startsWith('packs_')

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** The document with its made parts as they should be. Throws an Error where a marker is missing. */
export function renewed(text: string): string {
  let result = text
  for (const [name, make] of Object.entries(parts)) {
    const place = new RegExp(`(<!-- ${name}: [^\\n]* -->\\n)[\\s\\S]*?(<!-- /${name} -->)`)
    if (!place.test(result)) throw new Error(`spec/operations.md has no part ${name}`)
    result = result.replace(place, (_, begin: string, end: string) => `${begin}\n${make()}\n\n${end}`)
  }
  return result
}
