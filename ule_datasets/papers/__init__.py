"""What the papers print, as data, and the rules by which a number or an effect is confirmed."""
