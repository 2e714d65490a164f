//! An invite as a picture for the camera of another machine.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2, types::QrError as Inner};

/// Text that no QR code can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{length} characters do not fit a QR code: pass the text on itself, or grant fewer models and projects"
)]
pub struct QrError {
    /// Length of the text, in bytes.
    pub length: usize,
}

/// `text` as a QR code of half blocks, two rows in a line, dark on light, for a terminal.
///
/// Letters are made capital where that changes nothing for the reader of an invite: they take fewer dots.
///
/// # Errors
/// [`QrError`] when it is too long.
pub fn qr(text: &str) -> Result<String, QrError> {
    let capital = text.trim().to_ascii_uppercase();
    let code = QrCode::with_error_correction_level(&capital, EcLevel::L)
        .map_err(|_: Inner| QrError { length: text.len() })?;
    // A dark terminal shows a block as light: the colours are swapped, so that the margin is light too.
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}
