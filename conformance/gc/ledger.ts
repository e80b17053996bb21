import { sha256 } from '../registry-client.ts'

/** Something that happened to content or a manifest, for whoever looks for a failure. */
type Event = { at: number; who: string; what: string; subjects: readonly string[] }

/** A manifest as its owner, one client, knows it. `blobs`: the digests it needs. */
export type Entry = {
  repository: string
  digest: string
  bytes: Buffer
  blobs: readonly string[]
  /** `unsure`: something about it was asked and not answered, so it may be there or not. */
  state: 'there' | 'deleted' | 'unsure'
}

/**
 * What was asked of a registry and acknowledged. Every manifest and every tag belongs to one client, so what it was told
 * last is how it has to be; blobs belong to everybody.
 */
export class Ledger {
  readonly manifests = new Map<string, Entry>()
  /** `repository:tag` to digest; undefined: not known. */
  readonly tags = new Map<string, string | undefined>()
  /** Digests of content that was on its way when its process died, or whose push was not answered. */
  readonly interrupted = new Set<string>()
  readonly counts: Record<string, number> = {}
  private readonly events: Event[] = []
  private readonly started = Date.now()

  note(who: string, what: string, ...subjects: string[]): void {
    this.events.push({ at: Date.now() - this.started, who, what, subjects })
    const [kind = ''] = what.split(':')
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
  }

  keyOf(repository: string, bytes: Buffer): string {
    return `${repository}@${sha256(bytes)}`
  }

  /** What is known of these digests (or repositories, tags), in order of time. */
  history(...subjects: string[]): string {
    const told = this.events.filter((event) => event.subjects.some((subject) => subjects.includes(subject)))
    return told
      .map(({ at, who, what, subjects: of }) => `${(at / 1000).toFixed(3)} ${who}: ${what} ${of.join(' ')}`)
      .join('\n')
  }
}
