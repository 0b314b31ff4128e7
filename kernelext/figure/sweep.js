// Shows one figure of a sweep at a time, chosen by a slider, in place of the picture of all of them. data: {id, title, name, labels, frames, note,
// start}.
(function (data) {
  var root = document.querySelector('[data-espalier-sweep="' + data.id + '"]:not([data-ready])');
  if (!root) { return; }
  root.setAttribute('data-ready', '');
  var control = document.createElement('label');
  control.style.cssText = 'display:flex;align-items:center;gap:10px;margin:4px 0 8px';
  var name = document.createElement('span');
  name.textContent = data.name;
  var slider = document.createElement('input');
  slider.type = 'range';
  slider.min = 0;
  slider.max = data.frames.length - 1;
  slider.step = 1;
  slider.value = data.start;
  slider.style.cssText = 'width:280px;max-width:50%';
  var shown = document.createElement('output');
  shown.style.cssText = 'font-weight:bold;min-width:5em';
  control.append(name, slider, shown);
  var frame = document.createElement('div');
  function show() {
    var i = Number(slider.value);
    shown.textContent = data.labels[i];
    slider.setAttribute('aria-valuetext', data.labels[i]);
    frame.innerHTML = data.frames[i];
  }
  slider.addEventListener('input', show);
  // A notebook would take the arrow keys for itself.
  control.addEventListener('keydown', function (e) { e.stopPropagation(); });
  function line(text, style) {
    var p = document.createElement('div');
    p.textContent = text;
    p.style.cssText = style;
    return p;
  }
  root.replaceChildren(line(data.title, 'font-weight:bold;font-size:15px'), control, frame, line(data.note, 'font-size:12px;margin-top:6px'));
  show();
})
