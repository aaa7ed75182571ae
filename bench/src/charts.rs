//! Draws the tables of docs/performance.md, each chart once for light and once for dark pages.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Drawn<T = ()> = Result<T, Box<dyn Error>>;

const SIZE: (u32, u32) = (880, 460);
const OURS: &str = "sockpipe";

/// The colours of a chart on one kind of page.
struct Look {
    name: &'static str,
    page: RGBColor,
    text: RGBColor,
    grid: RGBColor,
    ours: RGBColor,
    others: RGBColor,
    lines: [RGBColor; 4],
}

const LOOKS: [Look; 2] = [
    Look {
        name: "light",
        page: RGBColor(255, 255, 255),
        text: RGBColor(31, 35, 40),
        grid: RGBColor(220, 224, 229),
        ours: RGBColor(9, 105, 218),
        others: RGBColor(130, 138, 147),
        lines: [
            RGBColor(130, 138, 147),
            RGBColor(190, 196, 203),
            RGBColor(9, 105, 218),
            RGBColor(207, 92, 0),
        ],
    },
    Look {
        name: "dark",
        page: RGBColor(13, 17, 23),
        text: RGBColor(230, 237, 243),
        grid: RGBColor(48, 54, 61),
        ours: RGBColor(88, 166, 255),
        others: RGBColor(139, 148, 158),
        lines: [
            RGBColor(139, 148, 158),
            RGBColor(88, 96, 105),
            RGBColor(88, 166, 255),
            RGBColor(255, 166, 87),
        ],
    },
];

impl Look {
    fn of(&self, who: &str) -> RGBColor {
        if who.starts_with(OURS) { self.ours } else { self.others }
    }

    fn words(&self, size: u32) -> TextStyle<'_> {
        TextStyle::from(("sans-serif", size)).color(&self.text)
    }
}

/// One line of a table.
struct Row {
    who: String,
    main: Option<f64>,
    p99: Option<f64>,
}

/// Reads the tables of `page`, and draws them into `folder`.
pub fn draw(page: &str, folder: &str) -> Drawn {
    let page = fs::read_to_string(page)?;
    let folder = Path::new(folder);
    fs::create_dir_all(folder)?;
    let cross = rows(&page, "W1 64 B round trip, cross core");
    let one_way = rows(&page, "W2 64 KiB writes, one way");
    let idle = rows(&page, "W6 5,000 idle connections");
    let scaling: Vec<_> = SCALE
        .iter()
        .map(|(count, title)| (f64::from(*count), rows(&page, title)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    for look in &LOOKS {
        let file = |chart: &str| folder.join(format!("{chart}-{}.svg", look.name));
        latency(&file("latency"), look, &cross)?;
        let title = "64 KiB writes, one way: bytes a second (more is better)";
        bars(&file("throughput"), look, title, &one_way, |value| format!("{value:.2} GB/s"))?;
        let title = "an idle connection: the server's memory (less is better)";
        bars(&file("memory"), look, title, &idle, |value| format!("{value:.0} bytes"))?;
        // The page of an older run lacks this table.
        if !scaling.is_empty() {
            scale(&file("scaling"), look, &scaling)?;
        }
    }
    Ok(())
}

/// The groups of W7, by their number of connections.
pub const SCALE: [(u32, &str); 5] = [
    (1, "W7 64 B round trips over 1 connection"),
    (10, "W7 64 B round trips over 10 connections"),
    (100, "W7 64 B round trips over 100 connections"),
    (1000, "W7 64 B round trips over 1,000 connections"),
    (10_000, "W7 64 B round trips over 10,000 connections"),
];

/// Returns the rows of the table below `title`. There are none if the page has no such table.
fn rows(page: &str, title: &str) -> Vec<Row> {
    let heading = format!("### {title}");
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let table = lines.skip_while(|line| line.is_empty()).take_while(|line| line.starts_with('|'));
    table
        .skip(2)
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            Row { who: cells[1].to_owned(), main: number(cells[2]), p99: number(cells[4]) }
        })
        // The rows of plain peers are for their bars, and lie where those of sockets do.
        .filter(|row| row.main.is_some() && !row.who.contains(", plain "))
        .collect()
}

/// Returns the number in a cell of microseconds, gigabytes per second, bytes, or operations per
/// second.
fn number(cell: &str) -> Option<f64> {
    if let Some(millions) = cell.strip_suffix(" M/s") {
        return Some(millions.parse::<f64>().ok()? * 1e6);
    }
    cell.split([' ', '/']).next()?.parse().ok()
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn canvas<'a>(file: &'a Path, look: &Look, title: &str) -> Drawn<Canvas<'a>> {
    let canvas = SVGBackend::new(file, SIZE).into_drawing_area();
    canvas.fill(&look.page)?;
    Ok(canvas.titled(title, look.words(19))?)
}

/// Draws a line from p50 to p99 for each competitor.
fn latency(file: &Path, look: &Look, rows: &[Row]) -> Drawn {
    let title = "64 B round trip between two cores: p50 ● and p99 ○, microseconds (less is better)";
    let canvas = canvas(file, look, title)?;
    let most = rows.iter().filter_map(|row| row.p99.or(row.main)).fold(10.0, f64::max);
    let least = rows.iter().filter_map(|row| row.main).fold(1.0, f64::min) * 0.8;
    let mut chart = ChartBuilder::on(&canvas)
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(260)
        .build_cartesian_2d((least..most * 1.3).log_scale(), -0.5..rows.len() as f64 - 0.5)?;
    grid(&mut chart, look, |micros| format!("{micros} µs"))?;
    for (at, row) in rows.iter().enumerate() {
        let (color, y) = (look.of(&row.who), rows.len() as f64 - 1.0 - at as f64);
        let Some(p50) = row.main else { continue };
        let p99 = row.p99.unwrap_or(p50);
        chart.draw_series(LineSeries::new([(p50, y), (p99, y)], color.stroke_width(2)))?;
        chart.draw_series([Circle::new((p50, y), 5, color.filled())])?;
        chart.draw_series([Circle::new((p99, y), 5, color.stroke_width(2))])?;
        name(&canvas, &chart, look, &row.who, (least, y))?;
    }
    canvas.present()?;
    Ok(())
}

fn bars(
    file: &Path,
    look: &Look,
    title: &str,
    rows: &[Row],
    show: impl Fn(f64) -> String,
) -> Drawn {
    let canvas = canvas(file, look, title)?;
    let most = rows.iter().filter_map(|row| row.main).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&canvas)
        .margin(12)
        .y_label_area_size(260)
        .build_cartesian_2d(0.0..most * 1.2, -0.5..rows.len() as f64 - 0.5)?;
    for (at, row) in rows.iter().enumerate() {
        let y = rows.len() as f64 - 1.0 - at as f64;
        let Some(value) = row.main else { continue };
        let bar = Rectangle::new([(0.0, y - 0.32), (value, y + 0.32)], look.of(&row.who).filled());
        chart.draw_series([bar])?;
        name(&canvas, &chart, look, &row.who, (0.0, y))?;
        let end = chart.backend_coord(&(value, y));
        let words = look.words(14).pos(Pos::new(HPos::Left, VPos::Center));
        put(&canvas, &show(value), words, (end.0 + 6, end.1))?;
    }
    canvas.present()?;
    Ok(())
}

/// Draws the rate of all connections together against their number.
fn scale(file: &Path, look: &Look, groups: &[(f64, Vec<Row>)]) -> Drawn {
    let title = "64 B round trips a second, by number of connections (more is better)";
    let canvas = canvas(file, look, title)?;
    // There are as many lines as colours.
    let drawn = |rows: &'_ [Row]| {
        rows.iter().take(look.lines.len()).filter_map(|row| row.main).fold(1.0, f64::max)
    };
    let rates = groups.iter().map(|(_, rows)| drawn(rows));
    let most = rates.fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&canvas)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((1.0..10_000.0).log_scale(), 0.0..most * 1.15)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(look.grid)
        .axis_style(look.grid)
        .label_style(look.words(14))
        .y_label_formatter(&|rate| format!("{:.0} k", rate / 1e3))
        .x_desc("connections")
        .draw()?;
    let names = groups.first().map(|(_, rows)| rows.iter().map(|row| row.who.clone()));
    for (who, color) in names.into_iter().flatten().zip(look.lines) {
        let points: Vec<_> = groups
            .iter()
            .filter_map(|(count, rows)| {
                Some((*count, rows.iter().find(|row| row.who == who)?.main?))
            })
            .collect();
        let line = LineSeries::new(points, color.stroke_width(2)).point_size(4);
        chart
            .draw_series(line)?
            .label(who)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(look.words(14))
        .draw()?;
    canvas.present()?;
    Ok(())
}

type Chart<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, RangedCoordf64>>;

/// Draws the grid. The names are beside the lines, so the left axis has no labels.
fn grid<'b, X>(chart: &mut Chart<'_, 'b, X>, look: &Look, show: impl Fn(&f64) -> String) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .light_line_style(TRANSPARENT)
        .bold_line_style(look.grid)
        .axis_style(look.grid)
        .label_style(look.words(14))
        .x_label_formatter(&show)
        .draw()?;
    Ok(())
}

/// Writes a name to the left of `at`.
fn name<X>(
    canvas: &Canvas<'_>,
    chart: &Chart<'_, '_, X>,
    look: &Look,
    who: &str,
    at: (f64, f64),
) -> Drawn
where
    X: Ranged<ValueType = f64>,
{
    let (x, y) = chart.backend_coord(&at);
    put(canvas, who, look.words(14).pos(Pos::new(HPos::Right, VPos::Center)), (x - 10, y))
}

/// Writes text at a position of the whole picture.
fn put(canvas: &Canvas<'_>, words: &str, style: TextStyle<'_>, at: (i32, i32)) -> Drawn {
    let (left, top) = canvas.get_base_pixel();
    canvas.draw_text(words, &style, (at.0 - left, at.1 - top))?;
    Ok(())
}
