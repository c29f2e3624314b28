/** Choices by name. */

/** Ways to fit an image whose aspect ratio differs from the model's input. */
export const fits = ['crop', 'stretch', 'pad'] as const;
export type Fit = (typeof fits)[number];

export const kernels = ['nearest', 'bilinear', 'bicubic', 'lanczos'] as const;
export type Kernel = (typeof kernels)[number];

export const channelOrders = ['rgb', 'bgr', 'gray'] as const;
export type ChannelOrder = (typeof channelOrders)[number];
