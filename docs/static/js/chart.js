// The accuracies of a suite: a dot a setting, a line a method, against the % of weights pruned or the bytes of the file.
const SVG = 'http://www.w3.org/2000/svg'
const AXES = {
  pruned: {label: '% of weights pruned', of: p => p.pruned, said: v => `${v}`},
  bytes: {label: 'bytes of the file', of: p => Math.log10(p.bytes), said: v => bytes(10 ** v)},
}

function shape(tag, attributes, ...children) {
  const o = document.createElementNS(SVG, tag)
  for (const [k, v] of Object.entries(attributes)) o.setAttribute(k, v)
  o.append(...children)
  return o
}

function element(tag, properties, ...children) {
  const o = Object.assign(document.createElement(tag), properties)
  o.append(...children)
  return o
}

const bytes = n => n < 1e3 ? `${Math.round(n)} B` : n < 1e6 ? `${+(n / 1e3).toPrecision(3)} kB` : `${+(n / 1e6).toPrecision(3)} MB`

function ticks(low, high, most) {   // round numbers, at most so many
  const step = [1, 2, 5].flatMap(k => [0.1, 1, 10].map(m => k * m)).sort((a, b) => a - b).find(o => (high - low) / o <= most)
  return Array.from({length: Math.floor(high / step) - Math.ceil(low / step) + 1}, (_, i) => +((Math.ceil(low / step) + i) * step).toFixed(1))
}

function decades(low, high, most) {   // logarithms of 1, 2, 5, 10, …, or of powers of ten alone
  const all = [1, 2, 5].flatMap(k => [1, 2, 3, 4, 5, 6, 7, 8, 9].map(d => d + Math.log10(k))).filter(o => low <= o && o <= high).sort((a, b) => a - b)
  return all.length <= most ? all : all.filter(Number.isInteger)
}

function said(p) {
  const spread = p.spread == null ? '' : ` ± ${p.spread.toFixed(1)}`, seeds = p.seeds == 1 ? '1 seed' : `${p.seeds} seeds`
  return `${p.network}, ${p.line}: ${p.test.toFixed(1)}${spread} %, ${p.pruned} % pruned, ${bytes(p.bytes)}, ${seeds}`
}

function chart(place, all) {
  const networks = [...new Set(all.map(p => p.network))], hidden = new Set()
  const size = name => all.filter(p => p.network == name).length
  const network = element('select', {}, ...networks.map(o => element('option', {}, o)))
  network.value = networks.reduce((a, b) => size(b) > size(a) ? b : a)
  const against = Object.keys(AXES).map(k => element('input', {type: 'radio', name: `against-${place.dataset.name}`, value: k, checked: k == 'pruned'}))
  const lines = element('div', {className: 'lines'}), told = element('p', {className: 'told'})
  const picture = shape('svg', {role: 'group', 'aria-label': 'Test accuracy of networks'})
  told.ariaLive = 'polite'
  place.append(element('div', {className: 'choices'}, element('label', {}, 'Network ', network),
    ...against.map(o => element('label', {}, o, ` against ${AXES[o.value].label}`))), picture, told, lines)

  function draw() {
    const axis = AXES[against.find(o => o.checked).value]
    const points = all.filter(p => p.network == network.value), shown = points.filter(p => !hidden.has(p.line))
    const width = place.clientWidth, height = 340, left = 46, right = 16, top = 10, bottom = 44
    const range = (values, margin) => [Math.min(...values) - margin, Math.max(...values) + margin]
    const [low, high] = range((shown.length ? shown : points).flatMap(p => [p.test - (p.spread ?? 0), p.test + (p.spread ?? 0)]), 0.5)
    const [from, to] = axis == AXES.pruned ? [-3, 103] : range(points.map(axis.of), 0.1)
    const x = v => left + (v - from) / (to - from) * (width - left - right)
    const y = v => top + (high - v) / (high - low) * (height - top - bottom)
    picture.setAttribute('viewBox', `0 0 ${width} ${height}`)
    const across = axis == AXES.pruned ? ticks(0, 100, 5) : decades(from, to, width / 80)
    picture.replaceChildren(
      ...ticks(low, high, 6).flatMap(v => [
        shape('line', {class: 'grid', x1: left, x2: width - right, y1: y(v), y2: y(v)}),
        shape('text', {x: left - 6, y: y(v) + 4, 'text-anchor': 'end'}, v)]),
      ...across.flatMap(v => [
        shape('line', {class: 'grid', x1: x(v), x2: x(v), y1: top, y2: height - bottom}),
        shape('text', {x: x(v), y: height - bottom + 16, 'text-anchor': 'middle'}, axis.said(v))]),
      shape('text', {x: (left + width - right) / 2, y: height - 6, 'text-anchor': 'middle'}, axis.label),
      shape('text', {transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, 'text-anchor': 'middle'}, 'test accuracy, %'))
    for (const name of new Set(shown.map(p => p.line))) {
      const line = shown.filter(p => p.line == name).sort((a, b) => axis.of(a) - axis.of(b)), {color} = line[0]
      const level = line[0].level && axis == AXES.pruned   // nothing is pruned: a level for the others
      const path = level ? [[x(0), y(line[0].test)], [x(100), y(line[0].test)]] : line.map(p => [x(axis.of(p)), y(p.test)])
      const group = shape('g', {class: 'line', 'data-name': name}, shape('polyline', {class: level ? 'level' : '', points: path.join(' '), stroke: color}))
      picture.append(group)
      for (const p of line) {
        const at = x(axis.of(p)), spread = p.spread ?? 0
        const dot = shape('circle', {cx: at, cy: y(p.test), r: 5, fill: color, tabindex: 0, role: 'img', 'aria-label': said(p)})
        dot.onpointerenter = dot.onfocus = () => { told.textContent = said(p) }
        group.append(shape('line', {x1: at, x2: at, y1: y(p.test - spread), y2: y(p.test + spread), stroke: color, 'stroke-width': 2}), dot)
      }
    }
    told.textContent = 'Point at a dot, or go through them with Tab, to read it.'
    const names = [...new Set(points.map(p => p.line))]
    lines.replaceChildren(...names.map(name => {
      const box = element('input', {type: 'checkbox', checked: !hidden.has(name)}), mark = element('span', {className: 'mark'})
      mark.style.background = points.find(p => p.line == name).color
      box.onchange = () => {
        box.checked ? hidden.delete(name) : hidden.add(name)
        draw()
        lines.querySelectorAll('input')[names.indexOf(name)].focus()
      }
      const label = element('label', {}, box, mark, name)
      label.onpointerenter = box.onfocus = () => single(name)
      label.onpointerleave = box.onblur = () => single()
      return label
    }))
  }
  function single(name) {   // variants of a method share its colour: the line that is pointed at, the others step back
    const all = [...picture.querySelectorAll('g.line')], one = all.some(o => o.dataset.name == name)
    for (const o of all) o.classList.toggle('back', one && o.dataset.name != name)
  }
  network.onchange = () => { hidden.clear(); draw() }
  for (const o of against) o.onchange = draw
  let width = 0
  new ResizeObserver(() => {
    if (place.clientWidth == width) return
    width = place.clientWidth
    draw()
  }).observe(place)
}

for (const place of document.querySelectorAll('.chart')) chart(place, JSON.parse(place.dataset.rows))
