// node packaging/sbom.mjs TARGET FOLDER: what is in the programs for that target, from `cargo metadata`.
//
// FOLDER/2ptth-server.cdx.json, 2ptth-client.cdx.json  CycloneDX 1.5: each crate that is linked, its version, licence and
//                                                      package URL, and what depends on what
// FOLDER/THIRD-PARTY.txt                               the licence texts that these crates come with
//
// Tools and tests that the programs are made with aren't listed: only normal dependencies are followed.
import { execFileSync } from 'node:child_process'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const [target, folder] = process.argv.slice(2)
const arguments_ = ['metadata', '--format-version', '1', '--locked', '--filter-platform', target]
const metadata = JSON.parse(execFileSync('cargo', arguments_, { maxBuffer: 1 << 28 }))
const packages = new Map(metadata.packages.map((it) => [it.id, it]))
const nodes = new Map(metadata.resolve.nodes.map((it) => [it.id, it]))

const needs = (id) =>
    nodes.get(id).deps.filter((it) => it.dep_kinds.some((kind) => kind.kind === null)).map((it) => it.pkg)

function linked(root) {
    const found = new Set([root])
    for (const id of found) needs(id).forEach((it) => found.add(it))
    return [...found]
}

// https://github.com/package-url/purl-spec, type cargo.
const url = ({ name, version }) => `pkg:cargo/${name}@${version}`
const component = (it, type = 'library') => ({
    type,
    'bom-ref': url(it),
    name: it.name,
    version: it.version,
    ...(it.description && { description: it.description.trim() }),
    // A `/` is how old crates write OR.
    ...(it.license && { licenses: [{ expression: it.license.replaceAll('/', ' OR ') }] }),
    purl: url(it),
})

const all = new Map()
for (const program of ['server', 'client']) {
    const root = metadata.packages.find((it) => it.name === `ptth-${program}`)
    const ids = linked(root.id).sort()
    const others = ids.filter((id) => id !== root.id).map((id) => packages.get(id))
    others.forEach((it) => all.set(url(it), it))
    const bom = {
        bomFormat: 'CycloneDX',
        specVersion: '1.5',
        version: 1,
        metadata: { component: component(root, 'application'), properties: [{ name: 'target', value: target }] },
        components: others.map((it) => component(it)),
        dependencies: ids.map((id) => ({
            ref: url(packages.get(id)),
            dependsOn: [...new Set(needs(id).map((it) => url(packages.get(it))))].sort(),
        })),
    }
    writeFileSync(join(folder, `2ptth-${program}.cdx.json`), JSON.stringify(bom, null, 1) + '\n')
}

const texts = []
for (const [, it] of [...all].sort(([a], [b]) => (a < b ? -1 : 1))) {
    // Ours are in LICENSE.txt.
    if (it.source === null) continue
    const home = dirname(it.manifest_path)
    const files = readdirSync(home, { withFileTypes: true }).filter(
        (file) => file.isFile() && /^(licen[cs]e|copying|notice|unlicense)/i.test(file.name),
    )
    texts.push(`==== ${it.name} ${it.version}: ${it.license ?? 'see its text'}`)
    files.forEach((file) => texts.push(readFileSync(join(home, file.name), 'utf8').trim()))
}
writeFileSync(join(folder, 'THIRD-PARTY.txt'), texts.join('\n\n') + '\n')
